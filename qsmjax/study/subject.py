"""One subject: COSMOS of its orientations, and every method on each of them. What is done is a file.

OUT/maps/SUBJECT/cosmos_Chimap.nii.gz                       in the reference orientation
OUT/maps/SUBJECT/ORIENTATION/{truth,cosmos,METHOD}_Chimap.nii.gz, mask, regions
OUT/maps/SUBJECT/ORIENTATION/METHOD.json                    written last: time, options, scores, regions
OUT/maps/SUBJECT/METHOD.json                                how it varies over the orientations
OUT/maps/SUBJECT/subject.json                               orientations and their transforms
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from qsmjax.inversion import cosmos
from qsmjax.io.nifti import NiftiVolume, load_volume, save_volume
from qsmjax.io.sidecar import load_json, save_json
from qsmjax.pipeline import in_world_axes, reference
from qsmjax.registration.field import bring_field
from qsmjax.registration.resample import resample, resample_within, voxel_transform
from qsmjax.study.scans import HeadScan, Method
from qsmjax.study.scores import judge, region_values

Told = Callable[[str], None]
REFERENCES = ("truth", "cosmos")


def run_subject(
    place: Path, orientations: Sequence[str], read: Callable[[], list[HeadScan]], methods: Sequence[Method], told: Told
) -> None:
    """Do what is left to do of a subject.

    Args:
      place: its folder among the maps.
      orientations: their names, the reference first.
      read: gives its scans in that order; called only if something is left.
      methods: what to run.
      told: hears of every step when it is done, or found done.

    Raises:
      ValueError: if the folder was made of other orientations, or there is nothing to judge by.
    """
    scans = functools.cache(read)
    kept = place / "subject.json"
    if kept.is_file() and load_json(kept).get("Orientations") != list(orientations):
        raise ValueError(
            f"{place} must have been made of {', '.join(orientations)}, got other orientations: choose another OUT"
        )
    place.mkdir(parents=True, exist_ok=True)
    if not kept.is_file():
        prepare(place, scans())
    told("cosmos")
    for number, orientation in enumerate(orientations):
        for method in methods:
            if not _kept(place / orientation / f"{method.label}.json", method):
                run_method(place / orientation, scans()[number], method)
                (place / f"{method.label}.json").unlink(missing_ok=True)
            told(method.label)
    for label in ("cosmos", *(method.label for method in methods)):
        if not (place / f"{label}.json").is_file() and len(orientations) > 1:
            save_json(place / f"{label}.json", {"Variation": variation(place, label)})


def prepare(place: Path, scans: Sequence[HeadScan]) -> None:
    """Solve COSMOS, turn it back to every orientation, and keep there what each map is held against.

    Raises:
      ValueError: if there is neither a second orientation nor a truth.
    """
    first = scans[0]
    if len(scans) < 2 and first.truth is None:
        raise ValueError(f"{place.name} must have two orientations or a truth.nii.gz, got {first.name} alone")
    made: dict[str, Any] = {}
    chi = None
    if len(scans) > 1:
        started = time.perf_counter()
        affine, grid = first.volume.affine, first.local.geometry
        fields = [first.local] + [bring_field(s.local, s.volume.affine, grid, affine, s.transform) for s in scans[1:]]
        solution = cosmos(fields)
        support = jnp.any(jnp.stack([f.mask for f in fields]), axis=0)
        chi = np.asarray(reference(solution.chi, support, support).chi)
        made = {"Seconds": time.perf_counter() - started, "ConditionNumber": float(solution.condition or 0)}
        save_volume(place / "cosmos_Chimap.nii.gz", chi, first.volume)
    for scan in scans:
        _references(place / scan.name, scan, first, chi, made)
    save_json(
        place / "subject.json",
        {
            "Orientations": [scan.name for scan in scans],
            "Transforms": [np.asarray(scan.transform).tolist() for scan in scans],
            "B0Directions": [[float(b) for b in scan.local.geometry.b0_dir] for scan in scans],
            **made,
        },
    )


def run_method(place: Path, scan: HeadScan, method: Method) -> None:
    """Run a method on a scan, judge its map by every reference that there is, and keep both."""
    started = time.perf_counter()
    solution = in_world_axes(method.invert, scan.local, scan.volume.affine, **method.options)
    chi = np.asarray(reference(solution.chi, scan.local.mask, scan.local.mask).chi)
    seconds = time.perf_counter() - started
    save_volume(place / f"{method.label}_Chimap.nii.gz", chi, scan.volume)
    described = {
        "Method": method.label,
        "Fingerprint": method.fingerprint,
        "Seconds": seconds,
        "Iterations": int(np.max(solution.iterations)),
        "Converged": bool(np.all(solution.converged)),
        "Weight": None if solution.weight is None else float(solution.weight),
        "BackgroundFound": solution.local is not None,
    }
    save_json(place / f"{method.label}.json", described | _judged(place, scan, chi))


def variation(place: Path, label: str) -> float:
    """Return the standard deviation over the orientations, in the reference's grid, averaged over the mask [ppm]."""
    maps = list(on_reference(place, label))
    known = np.all([np.isfinite(m) for m in maps], axis=0)
    return float(np.std([m[known] for m in maps], axis=0).mean()) if known.any() else 0.0


def on_reference(place: Path, label: str) -> Iterator[np.ndarray]:
    """Give a method's maps of all orientations brought to the reference's grid, NaN outside their masks."""
    subject = load_json(place / "subject.json")
    names, transforms = subject["Orientations"], subject["Transforms"]
    target = load_volume(place / names[0] / "mask.nii.gz")
    for name, transform in zip(names, transforms):
        volume, mask = (load_volume(place / name / f"{f}.nii.gz") for f in (f"{label}_Chimap", "mask"))
        yield brought(volume.data, mask.data, volume.affine, target, np.asarray(transform))


def brought(
    chi: np.ndarray, mask: np.ndarray, affine: np.ndarray, target: NiftiVolume, transform: np.ndarray
) -> np.ndarray:
    """Bring a map to the reference's grid; NaN outside its mask, and at the rim, where interpolation mixes both."""
    x, y, z = target.shape[:3]
    inside = resample(mask, affine, target.affine, (x, y, z), transform, method="linear") > 0.99
    return np.where(inside, resample(chi, affine, target.affine, (x, y, z), transform), np.nan)


def bring_regions(regions: np.ndarray, source: HeadScan, target: HeadScan) -> np.ndarray:
    """Bring the regions of one orientation to another's grid, voxel by nearest voxel."""
    # the target's world to the source's: through the reference's, which all transforms start from
    between = source.transform @ np.linalg.inv(target.transform)
    matrix = np.asarray(voxel_transform(source.volume.affine, target.volume.affine, between), float)
    shape = target.local.geometry.shape
    return scipy.ndimage.affine_transform(regions, matrix[:3, :3], matrix[:3, 3], shape, order=0)


def _references(place: Path, scan: HeadScan, first: HeadScan, chi: np.ndarray | None, made: dict[str, Any]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    mask = scan.local.mask
    save_volume(place / "mask.nii.gz", scan.mask, scan.volume)
    regions = scan.regions
    if regions is None and first.regions is not None:
        regions = bring_regions(first.regions, first, scan)
    if regions is not None:
        save_volume(place / "regions.nii.gz", regions, scan.volume)
    known = {} if scan.truth is None else {"truth": scan.truth}
    if chi is not None:
        source, target, shape = first.volume.affine, scan.volume.affine, scan.local.geometry.shape
        back = np.linalg.inv(scan.transform)
        turned = chi if scan is first else resample_within(chi, chi != 0, source, target, shape, back)
        known["cosmos"] = np.asarray(turned)
    referenced = {name: np.asarray(reference(jnp.asarray(v), mask, mask).chi) for name, v in known.items()}
    for name, volume in referenced.items():
        save_volume(place / f"{name}_Chimap.nii.gz", volume, scan.volume)
    for name, volume in referenced.items():
        save_json(place / f"{name}.json", {"Method": name, **made, **_judged(place, scan, volume, own=name)})


def _judged(place: Path, scan: HeadScan, chi: np.ndarray, own: str = "") -> dict[str, Any]:
    file = place / "regions.nii.gz"
    regions = np.rint(load_volume(file).data).astype(np.int32) if file.is_file() else None
    found: dict[str, Any] = {"Scores": {}}
    for name in REFERENCES:
        # a reference is judged by those that stand before it: COSMOS by the truth, the truth by none
        if own and REFERENCES.index(name) >= REFERENCES.index(own):
            continue
        if (place / f"{name}_Chimap.nii.gz").is_file():
            known = load_volume(place / f"{name}_Chimap.nii.gz").data
            found["Scores"][name] = judge(chi, known, scan.mask, scan.local.geometry, regions)
    if regions is not None:
        found["Regions"] = region_values(chi, regions, scan.mask)
    return found


def _kept(file: Path, method: Method) -> bool:
    return file.is_file() and load_json(file).get("Fingerprint") == method.fingerprint
