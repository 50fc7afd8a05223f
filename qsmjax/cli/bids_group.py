"""What the maps of a cohort give together: a table of regions, and one page.

    OUT/group_regions.tsv    a row for each scan and region: voxels, mean, std, median [ppm], method
    OUT/group_Chimap.html    what failed, what was made otherwise, what stands apart, and every map

Regions are those of a segmentation (*_dseg.nii.gz) among the derivatives, on the scan's grid, named by its *_dseg.tsv;
the whole mask of each map is always there.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsmjax.cli.errors import UserError, describe
from qsmjax.cli.participant import LOGS
from qsmjax.cli.scan import on_grid, read_mask
from qsmjax.io.aside import write_aside
from qsmjax.io.bids import Run, find_beside
from qsmjax.io.nifti import NiftiVolume, load_volume
from qsmjax.io.sidecar import load_json
from qsmjax.report.cohort import WHOLE, cohort_page, not_alike

COLUMNS = ("participant_id", "session_id", "scan", "region", "voxels", "mean", "std", "median", "method")


def summarise(runs: Sequence[Run], out: Path, derivatives: Sequence[Path], *, quiet: bool) -> int:
    """Write the table and the page.

    Args:
      runs: the scans of the dataset.
      out: root of their derivatives.
      derivatives: roots of datasets with segmentations.
      quiet: say nothing.

    Returns:
      The exit status: 1 if a scan that should have a map has none.

    Raises:
      UserError: if there are no maps.
    """
    rows: list[dict[str, Any]] = []
    pictures, problems, made = {}, {}, {}
    warnings: list[str] = []
    for run in runs:
        path = out / run.anat / f"{run.stem}_Chimap.nii.gz"
        log = out / LOGS / f"{run.stem}.txt"
        try:
            if path.exists():
                found, left_out = _rows(run, path, find_beside((*derivatives, out), run, "dseg"))
                told = _told(path)
                made[run.stem] = _made_with(told)
                rows += [{**row, "method": made[run.stem]["method"]} for row in found]
                doubts = (*_later_failure(path, log), *told.get("Warnings", ()), *left_out)
                warnings += [f"{run.stem}: {line}" for line in doubts]
            elif not run.magnitude_alone or log.exists():
                problems[run.stem] = _reason(log) if log.exists() else "not done yet"
        except (ValueError, OSError) as error:
            problems[run.stem] = describe(error)
        picture = out / "figures" / f"{run.stem}_Chimap.png"
        if picture.is_file():
            pictures[run.stem] = picture
    if not rows:
        raise UserError(f"{out} must hold maps, got none: call `qsmjax bids` with participant first")
    warnings = [*not_alike(made), *warnings]
    _write_table(out / "group_regions.tsv", rows)
    cohort_page(out / "group_Chimap.html", rows, pictures, problems, warnings)
    if not quiet:
        for scan, reason in problems.items():
            print(f"{scan}: no map: {reason}")
        for line in warnings:
            print(f"warning: {line}")
        maps = len({row["scan"] for row in rows})
        print(f"{maps} maps, {len(problems)} scans without one: {out / 'group_regions.tsv'}, group_Chimap.html")
    return 1 if problems else 0


def _reason(log: Path) -> str:
    return log.read_text(encoding="utf-8").partition("\n")[0]


def _later_failure(path: Path, log: Path) -> list[str]:
    """Say that a map was to be made anew and could not, if its log is the newer of the two."""
    if not log.exists() or log.stat().st_mtime_ns <= path.stat().st_mtime_ns:
        return []
    return [f"--again failed, this is the map from before: {_reason(log)}"]


def _told(path: Path) -> dict[str, Any]:
    try:
        return load_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"))
    except (ValueError, OSError) as error:
        return {"Warnings": [f"how the map was made is not known: {describe(error)}"]}


def _made_with(told: Mapping[str, Any]) -> dict[str, str]:
    """Take from a map's JSON what those that are compared must share, in words."""
    # the method and its weights say what these two chose
    settings = {key: value for key, value in told.get("Settings", {}).items() if key not in ("method", "workdir")}
    masks: dict[Any, str] = {True: "of the brain", False: "found from the magnitude"}
    return {
        "method": str(told.get("Method", "n/a")),
        "weights": told.get("Weights", {}).get("sha256", "none")[:12],
        "a mask": masks.get(told.get("SkullStripped"), "n/a"),
        **{f"--{key.replace('_', '-')}": str(value) for key, value in settings.items()},
    }


def _rows(run: Run, path: Path, segmentation: Path | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each region, and why there are none of a segmentation that was found."""
    volume = load_volume(path)
    beside = path.with_name(f"{run.stem}_desc-qsm_mask.nii.gz")
    mask = read_mask(load_volume(beside), volume)[0] if beside.exists() else volume.data != 0
    regions, left_out = {WHOLE: mask}, []
    try:
        regions |= _regions(segmentation, volume, mask) if segmentation else {}
    except (ValueError, OSError) as error:
        left_out = [f"regions left out: {describe(error)}"]
    row = {"participant_id": f"sub-{run.entities['sub']}", "scan": run.stem}
    row["session_id"] = f"ses-{run.entities['ses']}" if "ses" in run.entities else "n/a"
    rows = []
    for region, where in regions.items():
        values = volume.data[where].astype(np.float64)
        if values.size:
            figures = {"mean": values.mean(), "std": values.std(), "median": np.median(values)}
            rows.append({**row, "region": region, "voxels": int(values.size), **figures})
    return rows, left_out


def _regions(segmentation: Path, volume: NiftiVolume, mask: np.ndarray) -> dict[str, np.ndarray]:
    labels = np.where(mask, np.rint(on_grid(load_volume(segmentation), volume, "segmentation")), 0).astype(int)
    names = _names(segmentation)
    return {names.get(n, f"label-{n}"): labels == n for n in np.unique(labels) if n}


def _names(segmentation: Path) -> dict[int, str]:
    """Read index and name from the table beside a segmentation, or from one of its dataset that all share."""
    stem = segmentation.name.split(".")[0]
    near = [segmentation.with_name(f"{stem}.tsv"), *(folder / "dseg.tsv" for folder in segmentation.parents[:4])]
    for path in near:
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                table = list(csv.DictReader(file, delimiter="\t"))
            return {
                int(row["index"]): row["name"]
                for row in table
                if row.get("name") and (row.get("index") or "").lstrip("-").isdigit()
            }
    return {}


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})
    with write_aside(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
