"""One subject: COSMOS of its orientations, and every method on each of them. What is done is a file.

OUT/maps/SUBJECT/cosmos_Chimap.nii.gz                       in the reference orientation
OUT/maps/SUBJECT/ORIENTATION/{truth,cosmos,METHOD}_Chimap.nii.gz, mask, regions
OUT/maps/SUBJECT/ORIENTATION/METHOD.json                    written last: time, options, scores, regions
OUT/maps/SUBJECT/METHOD.json                                how it varies over the orientations
OUT/maps/SUBJECT/subject.json                               orientations, their transforms, what they were made of
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from qsmjax.evaluation.metrics import coverage
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
OWN = (*REFERENCES, "subject", "regularisation")
"""Files of a subject that are no method's: no label."""


def run_subject(
    place: Path, origin: Mapping[str, Any], read: Callable[[], list[HeadScan]], methods: Sequence[Method], told: Told
) -> None:
    """Do what is left to do of a subject.

    Args:
      place: its folder among the maps.
      origin: what its maps are made of: "Orientations", their names, the reference first; "InputSHA256" of each file;
        and whatever else must be the same when they are taken up again.
      read: gives its scans in that order; called only if something is left.
      methods: what to run.
      told: hears of every step when it is done, or found done.

    Raises:
      ValueError: if the folder was made of something else, or there is nothing to judge by.
    """
    scans = functools.cache(read)
    kept = place / "subject.json"
    if kept.is_file():
        check_origin(kept, origin)
    place.mkdir(parents=True, exist_ok=True)
    if not kept.is_file():
        prepare(place, scans(), origin)
    told("cosmos")
    orientations, removals = origin["Orientations"], load_json(kept)["BackgroundRemovals"]
    for number, (orientation, removal) in enumerate(zip(orientations, removals)):
        for method in (m.behind.get(removal, m) for m in methods):
            if not _kept(place / orientation / f"{method.label}.json", method):
                run_method(place / orientation, scans()[number], method)
                (place / f"{method.label}.json").unlink(missing_ok=True)
            told(method.label)
    for label in ("cosmos", *(method.label for method in methods)):
        if not (place / f"{label}.json").is_file() and len(orientations) > 1:
            found = variation(place, label)
            save_json(place / f"{label}.json", {} if found is None else {"Variation": found})


def check_origin(kept: Path, origin: Mapping[str, Any]) -> None:
    """Compare what a subject's maps were made of with what they would be made of now.

    Args:
      kept: its subject.json.
      origin: see `run_subject`.

    Raises:
      ValueError: if it is not the same.
    """
    before = load_json(kept)
    files, known = origin["InputSHA256"], before.get("InputSHA256", {})
    other = [key for key in origin if key != "InputSHA256" and before.get(key) != origin[key]]
    other += sorted(name for name in files.keys() | known.keys() if files.get(name) != known.get(name))
    if other:
        raise ValueError(
            f"{kept.parent} must go on with the scans that it was made of, got other {other[0]}: choose another OUT, "
            "or remove that folder"
        )


def prepare(place: Path, scans: Sequence[HeadScan], origin: Mapping[str, Any]) -> None:
    """Solve COSMOS, turn it back to every orientation, and keep there what each map is held against.

    Args:
      place: the subject's folder among the maps.
      scans: its orientations, the reference first.
      origin: see `run_subject`.

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
            **origin,
            "Transforms": [np.asarray(scan.transform).tolist() for scan in scans],
            "Correlations": [scan.correlation for scan in scans],
            "BackgroundRemovals": [scan.removal for scan in scans],
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
        "Inversion": method.name,
        "Fingerprint": method.fingerprint,
        "Seconds": seconds,
        "Iterations": int(np.max(solution.iterations)),
        "Converged": bool(np.all(solution.converged)),
        "Weight": None if solution.weight is None else float(solution.weight),
        "BackgroundFound": solution.local is not None,
    }
    # before the reference, which leaves no voxel at zero
    covered = float(coverage(solution.chi, scan.local.mask))
    save_json(place / f"{method.label}.json", described | _judged(place, scan, chi, covered))


def variation(place: Path, label: str) -> float | None:
    """Return the `spread_over` a method's maps of all orientations [ppm]."""
    return spread_over(list(on_reference(place, label)))


def spread_over(maps: Sequence[np.ndarray]) -> float | None:
    """Return the standard deviation over the orientations, averaged over the voxels that all have; None without such.

    Args:
      maps: of two orientations or more, brought to one grid, NaN where they are not known.
    """
    known = np.all([np.isfinite(m) for m in maps], axis=0)
    return float(np.std([m[known] for m in maps], axis=0, ddof=1).mean()) if known.any() else None


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
        covered = float(coverage(known[name], mask))
        save_json(place / f"{name}.json", {"Method": name, **made, **_judged(place, scan, volume, covered, own=name)})


def _judged(place: Path, scan: HeadScan, chi: np.ndarray, covered: float, own: str = "") -> dict[str, Any]:
    file = place / "regions.nii.gz"
    regions = np.rint(load_volume(file).data).astype(np.int32) if file.is_file() else None
    found: dict[str, Any] = {"Scores": {}}
    for name in REFERENCES:
        # a reference is judged by those that stand before it: COSMOS by the truth, the truth by none
        if own and REFERENCES.index(name) >= REFERENCES.index(own):
            continue
        if (place / f"{name}_Chimap.nii.gz").is_file():
            known = load_volume(place / f"{name}_Chimap.nii.gz").data
            found["Scores"][name] = judge(chi, known, scan.mask, scan.local.geometry, regions) | {"coverage": covered}
    if regions is not None:
        found["Regions"] = region_values(chi, regions, scan.mask)
    return found


def _kept(file: Path, method: Method) -> bool:
    return file.is_file() and load_json(file).get("Fingerprint") == method.fingerprint
