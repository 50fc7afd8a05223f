"""One scan of a BIDS dataset to its derivatives: what `qsmjax bids` does for each, here or on another machine.

    OUT/sub-*/[ses-*/]anat/*_Chimap.nii.gz, *_desc-std_Chimap.nii.gz [ppm], *_desc-qsm_mask.nii.gz
    OUT/sub-*/[ses-*/]fmap/*_fieldmap.nii.gz, *_desc-noise_fieldmap.nii.gz [Hz], *_magnitude.nii.gz
    OUT/figures/*_Chimap.png    OUT/logs/*.txt: why there is no map

Field maps are in Hz, as the standard asks. Each image has its JSON. All of a scan comes together, once all is on the
disk, and the map last, so that where it stands the scan is finished.
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
from qsmjax.cli.outputs import DEVIATION, MASK, Result, described_stage, earlier, sidecar
from qsmjax.cli.stages import choose_stages, made_by
from qsmjax.io.aside import write_aside
from qsmjax.io.bids import Run, find_beside
from qsmjax.io.nifti import file_hash, save_volume
from qsmjax.io.sidecar import load_json, save_json
from qsmjax.physics.units import hz_per_ppm
from qsmjax.report.paragraph import methods_paragraph

RAW, LOGS = "raw", "logs"
"""How the derivatives' description calls the dataset that they come from."""

FIELDS = ("magnitude", "fieldmap", "desc-noise_fieldmap", "desc-local_fieldmap")
"""What may stand in fmap/ of a scan."""

FINISHED = "finished before"

Images = dict[str, tuple[Any, Mapping[str, Any]]]
"""What follows a scan's name -> voxels, and what its JSON says of them."""


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

    def arguments(self, run: Run, brain: Path | None = None) -> argparse.Namespace:
        """Say it in the words of `infer`; what finds a mask is for runs that have none."""
        parser = argparse.ArgumentParser()
        infer.add_arguments(parser)
        args = parser.parse_args(["--input", "phase", "--quiet", *map(str, run.files)])
        vars(args).update(self.methods)
        if brain is not None:
            args.mask = str(brain)
            args.set = [pair for pair in args.set if not pair.startswith("mask.")]
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
            told = f", {len(warnings)} warnings in its JSON: {'; '.join(warnings)}" if warnings else ""
            state, words = "done", f"chi in {target}{told}"
        if state == "done" or words == FINISHED:
            # else it tells of a map that was to be made with the settings of now
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
    chosen = choose_stages(job.settings.arguments(job.run))["inversion"]
    asked = _asked(job, find_beside(job.settings.derivatives, job.run, "mask"))
    # a default may have been another method then
    same = {key: told.get(key) for key in asked} == asked and made_by(chosen, told)
    # and a network trained further since; where a residue was found, another than the chosen one made the map
    if same and chosen.name == told["Method"]:
        same = told.get("Weights") == described_stage(chosen).get("Weights")
    return FINISHED if same else f"{FINISHED}, with other settings: --again makes it anew"


def _asked(job: Job, brain: Path | None) -> dict[str, Any]:
    """Return what a map's JSON holds of how it was asked for."""
    methods = job.settings.methods.items()
    return {
        "Settings": {key: list(value) if isinstance(value, tuple) else value for key, value in methods},
        "BrainMask": {"Name": brain.name, "SHA256": file_hash(brain)} if brain else None,
        "StagesSaved": job.settings.save_stages,
    }


def _make(target: Path, job: Job, started: float) -> list[str]:
    """Make a scan's map, and return what speaks against it."""
    run, settings = job.run, job.settings
    brain = find_beside(settings.derivatives, run, "mask")
    args = settings.arguments(run, brain)
    stages = choose_stages(args)
    scan = read_run(run, settings.bids_dir, stages, args)
    if settings.derivatives and brain is None:
        doubt = "no brain mask in --derivatives: the mask found from the magnitude holds all that gives signal"
        scan = dataclasses.replace(scan, unlikely=(*scan.unlikely, doubt))
    result = infer.to_map(args, stages, scan, infer.local_field(stages, scan))
    sources = [f"bids:{RAW}:{path.relative_to(settings.bids_dir).as_posix()}" for path in run.files]
    common = {"Sources": sources, "SkullStripped": brain is not None}
    described = sidecar(result, args, time.perf_counter() - started)
    described["MethodsParagraph"] = methods_paragraph(described)
    described |= {"Description": "Magnetic susceptibility", **common, **_asked(job, brain)}
    maps = {**_beside_the_map(result, common), "Chimap": (result.mapped.chi, described)}
    _write(target, job, result, maps, _fields(result, job, common))
    return result.warnings


def _beside_the_map(result: Result, common: Mapping[str, Any]) -> Images:
    where = {
        "Type": "Brain" if common["SkullStripped"] else "ROI",
        "Description": "Where the map holds: the mask that the background removal left",
        "SpatialReference": "orig",
        "Sources": common["Sources"],
    }
    std = {"Units": "ppm", "Description": "Standard deviation of the map", **common}
    return {
        MASK: (result.local.mask, where),
        **({} if result.solution.std is None else {DEVIATION: (result.solution.std, std)}),
    }


def _fields(result: Result, job: Job, common: Mapping[str, Any]) -> Images:
    total = result.scan.field_map
    hz = float(hz_per_ppm(result.scan.b0 or 1.0))
    volumes = {
        "magnitude": (total.magnitude, 1.0, "arbitrary", "Amplitude at TE = 0 of the fit to the echoes"),
        "fieldmap": (total.field, hz, "Hz", "Total field"),
        "desc-noise_fieldmap": (total.noise, hz, "Hz", "Standard deviation of the field's noise"),
    }
    # a one-step method has none
    if job.settings.save_stages and not result.one_step:
        volumes["desc-local_fieldmap"] = (result.local.field, hz, "Hz", "Local field")
    images: Images = {}
    for name, (volume, scale, units, words) in volumes.items():
        if volume is not None:
            told = {"Units": units, "Description": words, "MagneticFieldStrength": result.scan.b0, **common}
            images[name] = scale * np.asarray(volume), told
    return images


def _write(target: Path, job: Job, result: Result, maps: Images, fields: Images) -> None:
    """Write all of a scan, then take away what an earlier map left that does not belong to this one."""
    settings, name = job.settings, job.name
    field = inside(settings.out_dir, job.run.anat.parent / "fmap") / f"{name}_fieldmap.nii.gz"
    picture = placed(settings.out_dir, Path("figures")) / f"{name}_Chimap.png"
    named = lambda place, what: [place.with_name(f"{name}_{w}{end}") for w in what for end in (".json", ".nii.gz")]
    before = {*earlier(target), *named(target, [DEVIATION]), *named(field, FIELDS), picture}
    # a disk that is full before all is written leaves the old map with its own JSON; what is opened first moves last
    with write_aside(target) as map_aside, write_aside(field) as field_aside, contextlib.ExitStack() as drawing:
        if settings.figure:
            from qsmjax.report.figures import three_plane  # matplotlib is paid for only where it draws

            drawn = drawing.enter_context(write_aside(inside(settings.out_dir, Path("figures")) / picture.name))
            affine, mask = result.scan.volume.affine, np.asarray(result.local.mask)
            three_plane(np.asarray(result.mapped.chi), drawn, affine=affine, mask=mask, title=name)
            before.remove(picture)
        for aside, images in ((field_aside, fields), (map_aside, maps)):
            for what, (data, told) in images.items():
                save_json(aside.with_name(f"{name}_{what}.json"), dict(told))
                save_volume(aside.with_name(f"{name}_{what}.nii.gz"), np.asarray(data), result.scan.volume)
    for path in before.difference(named(target, maps), named(field, fields)):
        path.unlink(missing_ok=True)
