"""One page of all maps of a cohort: what failed, what stands apart, the regions, and each map's picture."""

import html
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qsmjax.report.document import document, numbers, picture, points, section

APART = 3.5
"""Robust standard deviations from the cohort's median beyond which a scan is pointed at."""
FEWEST = 5
"""Scans below which nothing can stand apart."""
WHOLE = "mask"
"""The region that every map has: all of its mask."""


def cohort_page(
    path: str | os.PathLike,
    rows: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, pathlib.Path],
    problems: Mapping[str, str],
    warnings: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
      path: where to write; the page needs no other file.
      rows: one a scan and region: "scan", "region", "voxels", "mean", "std", "median" [ppm], "method".
      pictures: PNG of each scan's map, where there is one.
      problems: scan -> why it has no map.
      warnings: what speaks against maps, or against comparing them, in lines.
    """
    scans = list(dict.fromkeys(row["scan"] for row in rows))
    unusual = standing_apart(rows)
    parts = [f"<p>{len(scans)} maps, {len(problems)} scans without one.</p>"]
    if problems:
        lines = [f"{scan}: {reason}" for scan, reason in problems.items()]
        parts.append(f'<div class="warnings">{section("Without a map", points(lines))}</div>')
    if warnings:
        parts.append(f'<div class="warnings">{section("Warnings", points(warnings))}</div>')
    if unusual:
        parts.append(f'<div class="warnings">{section("Standing apart", points(unusual))}</div>')
    parts.append(section("Regions over all scans [ppm]", numbers(_over_scans(rows))))
    parts.append(section("Whole mask of each scan [ppm]", numbers([r for r in rows if r["region"] == WHOLE])))
    shown = [f"<h3>{html.escape(scan)}</h3>{picture(scan, pictures[scan])}" for scan in scans if scan in pictures]
    parts.append(section("Maps", *shown))
    document(path, "Susceptibility maps of the cohort", parts)


def standing_apart(rows: Sequence[Mapping[str, Any]], *, limit: float = APART) -> list[str]:
    """Say which scans lie far from the others: by a region's mean, or by the spread over the whole mask.

    Distance from the median over 1.4826 times the median absolute deviation.

    References:
      Iglewicz & Hoaglin, How to Detect and Handle Outliers, ASQC Quality Press (1993).
    """
    lines = []
    for region in dict.fromkeys(row["region"] for row in rows):
        found = [row for row in rows if row["region"] == region]
        figure = "std" if region == WHOLE else "mean"
        values = np.array([row[figure] for row in found], float)
        middle = np.median(values)
        robust = 1.4826 * np.median(np.abs(values - middle))
        if len(found) < FEWEST or robust <= 0:
            continue
        for row, value in zip(found, values):
            far = (value - middle) / robust
            if abs(far) > limit:
                lines.append(
                    f"{row['scan']}: the {figure} of {region} is {value:.3f} ppm, {far:+.1f} robust standard "
                    f"deviations from the median of {middle:.3f}"
                )
    return lines


def not_alike(made: Mapping[str, Mapping[str, str]], *, named: int = 3) -> list[str]:
    """Say in what maps were made otherwise than each other, a line each.

    Args:
      made: scan -> what it was made with: name -> value.
      named: most scans of one value that are named.
    """
    lines = []
    for what in dict.fromkeys(name for values in made.values() for name in values):
        scans: dict[str, list[str]] = {}
        for scan, values in made.items():
            scans.setdefault(values.get(what, "n/a"), []).append(scan)
        if len(scans) > 1:
            told = [
                f"{value} in {', '.join(having[:named])}"
                + (f" and {len(having) - named} more" if having[named:] else "")
                for value, having in scans.items()
            ]
            lines.append(f"maps should be made alike to be compared, got {what} {'; '.join(told)}")
    return lines


def _over_scans(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    table = []
    for region in dict.fromkeys(row["region"] for row in rows):
        means = np.array([row["mean"] for row in rows if row["region"] == region], float)
        stds = np.array([row["std"] for row in rows if row["region"] == region], float)
        spread = float(means.std(ddof=1)) if len(means) > 1 else None
        table.append(
            {
                "region": region,
                "scans": len(means),
                "mean": float(means.mean()),
                "std between scans": spread,
                "mean std within": float(stds.mean()),
            }
        )
    return table
