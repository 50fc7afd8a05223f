"""What `infer` leaves behind: the map, its sidecar, its picture, and the stages where they are asked for."""

import argparse
import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qsmjax.cli import methods
from qsmjax.cli.scan import Scan
from qsmjax.cli.stages import Stage
from qsmjax.inversion import taken
from qsmjax.inversion.solution import Solution
from qsmjax.io.nifti import file_hash, save_volume, stem
from qsmjax.io.sidecar import load_json, save_json
from qsmjax.physics.field_map import FieldMap
from qsmjax.pipeline import Referenced
from qsmjax.report.paragraph import methods_paragraph

DEVIATION, MASK, REMOVED = "desc-std_Chimap", "desc-qsm_mask", "desc-removed_mask"
TOTAL, NOISE = "desc-total_fieldmap", "desc-noise_fieldmap"
"""What follows a map's name: a user's own NAME_mask.nii.gz stays what it is."""


@dataclasses.dataclass(frozen=True)
class Result:
    """A map and the way to it.

    Attributes:
      scan: the input: its field is total, unless a local one was given.
      stages: the methods in their slots.
      local: the local field; the total one, where the inversion takes that.
      solution: the map as the inversion gave it.
      mapped: the referenced map.
      notes: what was done that a user should know.
      labels: a segmentation on the scan's grid, for the report.
      unlikely: what speaks against the input's being what it was taken for, in lines.
    """

    scan: Scan
    stages: Mapping[str, Stage]
    local: FieldMap
    solution: Solution
    mapped: Referenced
    notes: tuple[str, ...]
    labels: np.ndarray | None = None
    unlikely: tuple[str, ...] = ()

    @property
    def one_step(self) -> bool:
        """Whether the map was made of the total field itself."""
        return taken(self.stages["inversion"].run) == "totalfield"

    @property
    def warnings(self) -> list[str]:
        """What went less than well, and what the input is unlike."""
        return [*self.unfinished, *self.unlikely]

    @property
    def unfinished(self) -> list[str]:
        """What the solver did not reach."""
        if bool(np.all(self.solution.converged)):
            return []
        return [
            f"not converged: the change was still {float(np.max(self.solution.residual)):.2g} after "
            f"{int(np.max(self.solution.iterations))} iterations: raise max_iterations with --set"
        ]


def write_result(target: Path, result: Result, args: argparse.Namespace, seconds: float) -> list[Path]:
    """Write everything, the map last: where it stands, all that belongs to it stands too.

    Returns:
      The files.

    Raises:
      OSError: if the folder cannot be written to.
    """
    name = stem(target)
    mask = np.asarray(result.local.mask)
    written = [target, target.with_name(f"{name}.json")]
    if not args.no_figure:
        from qsmjax.report.figures import three_plane  # matplotlib is paid for only where it draws

        picture = target.with_name(f"{name}.png")
        three_plane(np.asarray(result.mapped.chi), picture, affine=result.scan.volume.affine, mask=mask, title=name)
        written.append(picture)
    extra: dict[str, Any] = {}
    if result.solution.std is not None:
        extra[DEVIATION] = result.solution.std
    if "background" in result.stages or result.scan.removed is not None:
        extra |= {MASK: mask, REMOVED: result.scan.whole & ~mask}
    if args.save_stages:
        extra |= {MASK: mask} | ({} if result.one_step else {"desc-local_fieldmap": result.local.field})
        if "background" in result.stages or result.one_step:
            extra[TOTAL] = result.scan.field_map.field
        if result.scan.field_map.noise is not None:
            extra[NOISE] = result.scan.field_map.noise
    for what, volume in extra.items():
        written.append(_beside(target, what))
        save_volume(written[-1], np.asarray(volume), result.scan.volume)
    described = sidecar(result, args, seconds)
    described["MethodsParagraph"] = methods_paragraph(described)
    if args.report:
        from qsmjax.report.page import MapFacts, map_page

        facts = MapFacts(
            local=result.local,
            chi=result.mapped.chi,
            inverted=result.solution.chi,
            affine=result.scan.volume.affine,
            sidecar=described | {"Arguments": given_arguments(args)},
            std=result.solution.std,
            total=result.scan.field_map if "background" in result.stages else None,
            labels=result.labels,
            one_step=result.one_step,
        )
        written.append(target.with_name(f"{name}.html"))
        map_page(written[-1], facts, title=target.name)
    save_json(target.with_name(f"{name}.json"), described)
    save_volume(target, np.asarray(result.mapped.chi), result.scan.volume)
    return written


def paths(target: Path, *, stages: bool = True, figure: bool = True, report: bool = True) -> list[Path]:
    """Return every file that `write_result` may write for a map at `target`, with what is asked for."""
    names = [DEVIATION, MASK, REMOVED]
    if stages:
        names += ["desc-local_fieldmap", TOTAL, NOISE]
    endings = [".json"] + [".png"] * figure + [".html"] * report
    own = [target.with_name(stem(target) + ending) for ending in endings]
    return [target, *own, *(_beside(target, name) for name in names)]


def earlier(target: Path) -> list[Path]:
    """Return the files of the map that stands at `target`; none where no sidecar says that it is one of ours."""
    try:
        maker = load_json(target.with_name(f"{stem(target)}.json")).get("GeneratedBy")
    except (OSError, ValueError):
        return []
    ours = isinstance(maker, dict) and maker.get("Name") == "qsmjax" and target.exists()
    return [path for path in paths(target) if path.exists()] if ours else []


def _beside(target: Path, name: str) -> Path:
    return target.with_name(f"{stem(target).removesuffix('_Chimap')}_{name}.nii.gz")


def given_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that say something, files by their names alone: a page is passed on."""
    named = lambda value: Path(value).name if isinstance(value, str) and "/" in value else value
    shown = lambda value: [named(each) for each in value] if isinstance(value, list | tuple) else named(value)
    return {key: shown(value) for key, value in vars(args).items() if value not in (None, False, [], ())}


def sidecar(result: Result, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Describe a map: methods, parameters, units, reference, geometry, input and versions."""
    scan, solution, grid = result.scan, result.solution, result.local.geometry
    chi = np.asarray(result.mapped.chi, np.float64)[np.asarray(result.local.mask)]
    inputs = [Path(path) for path in (*args.field, *(args.imaginary or ()))]
    stages = {slot: described_stage(stage) for slot, stage in result.stages.items()}
    if solution.weight is not None:
        stages["inversion"]["Parameters"]["weight"] = float(solution.weight)
    return {
        "Units": "ppm",
        "Method": result.stages["inversion"].name,
        **{key: value for key, value in stages["inversion"].items() if key != "Method"},
        "Stages": stages,
        "Input": [path.name for path in inputs],
        "InputKind": args.input,
        "InputSHA256": [file_hash(path) for path in inputs],
        "InputsBeside": beside_inputs(args),
        "FieldUnits": args.units if args.input not in ("phase", "kspace") else "rad",
        "Reference": args.reference,
        "ReferenceOffset": float(result.mapped.offset),
        "MaskMean": float(chi.mean()),
        "MaskStd": float(chi.std()),
        "B0Direction": [float(b) for b in grid.b0_dir],
        "B0DirectionSource": scan.b0_source,
        "MagneticFieldStrength": scan.b0,
        "EchoTime": list(scan.te),
        "VoxelSize": [float(d) for d in grid.voxel_size],
        "Matrix": list(grid.shape),
        "Acquisition": dict(scan.acquisition),
        "MaskVoxels": int(np.asarray(result.local.mask).sum()),
        "Iterations": int(np.max(solution.iterations)),
        "Residual": float(np.max(solution.residual)),
        "Converged": bool(np.all(solution.converged)),
        "Notes": list(result.notes),
        "Warnings": result.warnings,
        "Seconds": round(seconds, 3),
        "GeneratedBy": software(),
    }


def beside_inputs(args: argparse.Namespace) -> Mapping[str, list[dict[str, str]]]:
    """Name the files that were given beside the field, with their hashes."""
    names = ("mask", "magnitude", "noise", "calibration", "coil_noise", "reference", "params", "labels")
    given = {name: getattr(args, name, None) for name in names}
    files = {name: value if isinstance(value, list) else [value] for name, value in given.items() if value}
    return {
        name: [{"Name": path.name, "SHA256": file_hash(path)} for path in map(Path, named)]
        for name, named in files.items()
        if all(Path(path).is_file() for path in named)
    }


def software() -> dict[str, str]:
    """Name this software and what it runs on."""
    versions = {"Version": importlib.metadata.version("qsmjax"), "jax": importlib.metadata.version("jax")}
    return {"Name": "qsmjax", **versions, "Python": platform.python_version()}


def described_stage(stage: Stage) -> dict[str, Any]:
    """Describe a stage: its method, every parameter, references, and weights where it has some."""
    card = stage.card()
    weights = {name: card[name] for name in ("sha256", "training_data", "licence") if name in card}
    return {
        "Method": stage.name,
        "Description": methods.summary(stage.run),
        "Parameters": dict(stage.parameters),
        "References": methods.dois(stage.run),
        **({"Weights": weights} if weights else {}),
    }
