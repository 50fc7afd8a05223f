"""One scan of a BIDS dataset to its derivatives: what `qsmjax bids` does for each, here or on another machine.

    OUT/sub-*/[ses-*/]anat/*_Chimap.nii.gz, *_desc-std_Chimap.nii.gz [ppm], *_desc-qsm_mask.nii.gz
    OUT/sub-*/[ses-*/]fmap/*_fieldmap.nii.gz, *_desc-noise_fieldmap.nii.gz [Hz], *_magnitude.nii.gz
    OUT/figures/*_Chimap.png    OUT/logs/*.txt: why there is no map

Field maps are in Hz, as the standard asks. Each image has its JSON, which is written before it; the map comes last, so
that where it stands the scan is finished.
"""

import argparse
import contextlib
import dataclasses
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qsmjax.cli import infer
from qsmjax.cli.bids_scan import read_run
from qsmjax.cli.errors import UserError, describe, mendable
from qsmjax.cli.outputs import Result, sidecar
from qsmjax.cli.stages import choose_stages, made_by
from qsmjax.io.aside import write_aside
from qsmjax.io.bids import Run, find_beside
from qsmjax.io.nifti import save_volume
from qsmjax.io.sidecar import load_json, save_json
from qsmjax.physics.units import hz_per_ppm
from qsmjax.report.paragraph import methods_paragraph

RAW, LOGS = "raw", "logs"
"""How the derivatives' description calls the dataset that they come from."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is done to every scan.

    Attributes:
      bids_dir: the dataset.
      out_dir: root of the derivatives.
      derivatives: roots of other derivatives, where masks are looked for.
      methods: those of `infer` that choose methods: preset, method, set, workdir, phase_units, reference, nan_to_mask.
      again: whether a finished scan is done again.
      figure: whether a picture is drawn.
      save_stages: whether the local field is kept too.
    """

    bids_dir: Path
    out_dir: Path
    derivatives: tuple[Path, ...]
    methods: Mapping[str, Any]
    again: bool = False
    figure: bool = True
    save_stages: bool = False

    def arguments(self, run: Run) -> argparse.Namespace:
        """Say it in the words of `infer`."""
        parser = argparse.ArgumentParser()
        infer.add_arguments(parser)
        args = parser.parse_args(["--input", "phase", "--quiet", *map(str, run.files)])
        vars(args).update(self.methods)
        return args


@dataclasses.dataclass(frozen=True)
class Job:
    """One scan to do, and the memory that it takes [bytes]."""

    run: Run
    settings: Settings
    memory: int = 0

    @property
    def name(self) -> str:
        """Whose it is."""
        return self.run.stem


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a scan: its map, or in words why there is none."""

    name: str
    state: Literal["done", "skipped", "failed"]
    words: str
    seconds: float = 0.0


def work(job: Job) -> Outcome:
    """Make one scan's map; whatever goes wrong is told in the outcome and in the logs, and never raised."""
    started = time.perf_counter()
    log = None
    try:
        log = placed(job.settings.out_dir, Path(LOGS)) / f"{job.name}.txt"
        target = inside(job.settings.out_dir, job.run.anat) / f"{job.name}_Chimap.nii.gz"
        state, words = "skipped", _finished(target, job)
        if words is None:
            if job.run.problem:
                raise UserError(job.run.problem)
            warnings = _make(target, job, started)
            told = f", {len(warnings)} warnings in its JSON: {warnings[0]}" if warnings else ""
            state, words = "done", f"chi in {target}{told}"
        log.unlink(missing_ok=True)
        return Outcome(job.name, state, words, time.perf_counter() - started)  # type: ignore[arg-type]
    except Exception as error:
        known = mendable(error)
        words = describe(error) if known else f"{type(error).__name__}: {describe(error)} (an error of ours)"
        # a full disk or a folder that is gone must not stop the others
        with contextlib.suppress(OSError):
            _write_log(log, words + "\n" + ("" if known else traceback.format_exc()))
        return Outcome(job.name, "failed", words, time.perf_counter() - started)


def _write_log(log: Path | None, words: str) -> None:
    # None: where it would lie is no place of the derivatives
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(log) as temporary:
            temporary.write_text(words, encoding="utf-8")


def inside(out_dir: Path, relative: Path) -> Path:
    """Make a folder of the derivatives: `placed`, and there."""
    folder = placed(out_dir, relative)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def placed(out_dir: Path, relative: Path) -> Path:
    """Return where a folder of the derivatives is.

    Raises:
      UserError: if links would take it out of them.
    """
    folder = out_dir / relative
    try:
        real = folder.resolve()
    except RuntimeError as error:
        raise UserError(f"{folder} must be a folder, got links in a circle: remove them") from error
    if not real.is_relative_to(out_dir.resolve()):
        raise UserError(f"{folder} must lie in {out_dir}, got a link to {real}: remove it")
    return folder


def _finished(target: Path, job: Job) -> str | None:
    if job.settings.again or not target.exists():
        return None
    try:
        told = load_json(target.with_name(f"{job.name}_Chimap.json"))
    except (OSError, ValueError):
        return None
    # a default may have been another method then
    chosen = None if job.settings.methods["workdir"] else choose_stages(job.settings.arguments(job.run))["inversion"]
    same = told.get("Settings") == _settings(job) and (chosen is None or made_by(chosen, told))
    return "finished before" + ("" if same else ", with other settings: --again makes it anew")


def _settings(job: Job) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in job.settings.methods.items()}


def _make(target: Path, job: Job, started: float) -> list[str]:
    """Make a scan's map, and return what speaks against it."""
    run, settings = job.run, job.settings
    args = settings.arguments(run)
    stages = choose_stages(args)
    brain = find_beside(settings.derivatives, run, "mask")
    scan = read_run(run, settings.bids_dir, stages["field"], args, brain)
    local = infer.local_field(stages, scan)
    result = infer.to_map(args, stages, scan, local)
    fields = inside(settings.out_dir, run.anat.parent / "fmap")
    sources = [f"bids:{RAW}:{path.relative_to(settings.bids_dir).as_posix()}" for path in run.files]
    common = {"Sources": sources, "SkullStripped": brain is not None}
    _write_fields(fields, result, job, common)
    _write(
        target.with_name(f"{job.name}_desc-qsm_mask.nii.gz"),
        np.asarray(local.mask),
        result,
        {
            "Type": "Brain" if brain else "ROI",
            "Description": "Where the map holds: the mask that the background removal left",
            "SpatialReference": "orig",
            "Sources": sources,
        },
    )
    std = target.with_name(f"{job.name}_desc-std_Chimap.nii.gz")
    if result.solution.std is None:
        # that of another method's map does not belong to this one
        for old in (std, std.with_name(f"{job.name}_desc-std_Chimap.json")):
            old.unlink(missing_ok=True)
    else:
        told = {"Units": "ppm", "Description": "Standard deviation of the map", **common}
        _write(std, np.asarray(result.solution.std), result, told)
    if settings.figure:
        from qsmjax.report.figures import three_plane  # matplotlib is paid for only where it draws

        picture = inside(settings.out_dir, Path("figures")) / f"{job.name}_Chimap.png"
        three_plane(result.mapped.chi, picture, affine=scan.volume.affine, mask=local.mask, title=job.name)
    described = sidecar(result, args, time.perf_counter() - started)
    described["MethodsParagraph"] = methods_paragraph(described)
    described |= {"Description": "Magnetic susceptibility", **common, "Settings": _settings(job)}
    _write(target, np.asarray(result.mapped.chi), result, described)
    return result.warnings


def _write_fields(folder: Path, result: Result, job: Job, common: Mapping[str, Any]) -> None:
    total = result.scan.field_map
    hz = float(hz_per_ppm(result.scan.b0 or 1.0))
    volumes = {
        "magnitude": (total.magnitude, 1.0, "arbitrary", "Amplitude at TE = 0 of the fit to the echoes"),
        "fieldmap": (total.field, hz, "Hz", "Total field"),
        "desc-noise_fieldmap": (total.noise, hz, "Hz", "Standard deviation of the field's noise"),
    }
    if job.settings.save_stages:
        volumes["desc-local_fieldmap"] = (result.local.field, hz, "Hz", "Local field")
    for name, (volume, scale, units, words) in volumes.items():
        if volume is not None:
            told = {"Units": units, "Description": words, "MagneticFieldStrength": result.scan.b0, **common}
            _write(folder / f"{job.name}_{name}.nii.gz", scale * np.asarray(volume), result, told)


def _write(path: Path, data: np.ndarray, result: Result, told: Mapping[str, Any]) -> None:
    save_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), dict(told))
    save_volume(path, data, result.scan.volume)
