"""The plots of a study: regions over orientations, regression, Bland-Altman, MEDI's weight, lesions.

Every figure is written as PNG and PDF, readable at the width of a column.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from qsmjax.report.figures import COLOURS
from qsmjax.report.study_maps import write_both

POINT = {"s": 9, "alpha": 0.6, "linewidths": 0}


def region_figure(
    regions: Sequence[str], values: Mapping[str, Sequence[tuple[float, float]]], path: str | os.PathLike
) -> None:
    """Draw each region's mean with its standard deviation over the orientations, a colour a method.

    Args:
      regions: names.
      values: for each method mean and deviation of each region [ppm]; NaN for none.
      path: without a suffix.
    """
    figure = Figure((7.0, 3.2), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    step = 0.8 / max(len(values), 1)
    for number, (method, pairs) in enumerate(values.items()):
        x = np.arange(len(regions)) - 0.4 + (number + 0.5) * step
        mean, deviation = np.asarray(pairs, float).T
        colour = "#222222" if method == "truth" else COLOURS[(number - ("truth" in values)) % len(COLOURS)]
        axes.bar(x, mean, 0.9 * step, color=colour, label=method)
        axes.errorbar(x, mean, deviation, fmt="none", ecolor="#000000", elinewidth=0.8, capsize=1.5)
    axes.axhline(0, color="#555555", linewidth=0.6)
    axes.set_xticks(range(len(regions)), [r.replace(" ", "\n") for r in regions], fontsize=7)
    axes.set_ylabel("susceptibility [ppm]", fontsize=8)
    _finish(axes)
    axes.legend(fontsize=7, frameon=False, ncols=4)
    write_both(figure, path)


def regression_figure(
    points: Mapping[str, tuple[NDArray, NDArray]],
    lines: Mapping[str, tuple[float, float, float]],
    path: str | os.PathLike,
    *,
    labels: tuple[str, str],
) -> None:
    """Draw points with their line, a panel a method.

    Args:
      points: x and y of each method [ppm].
      lines: slope, intercept and R² of each.
      path: without a suffix.
      labels: of x and y.
    """
    figure, panels = _panels(len(points))
    values = np.concatenate([v for pair in points.values() for v in pair]) if points else np.zeros(1)
    low, high = _range(values)
    for axes, (method, (x, y)) in zip(panels, points.items()):
        slope, intercept, r2 = lines[method]
        axes.plot([low, high], [low, high], color="#999999", linewidth=0.7, linestyle="--")
        axes.scatter(x, y, color=COLOURS[0], **POINT)
        if np.isfinite(slope):
            ends = np.asarray([low, high])
            axes.plot(ends, slope * ends + intercept, color=COLOURS[1], linewidth=1.2)
        axes.set_title(f"{method}: slope {slope:.2f}, R² {r2:.2f}", fontsize=8, loc="left")
        axes.set_xlabel(labels[0], fontsize=7)
        axes.set_ylabel(labels[1], fontsize=7)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        _finish(axes)
    write_both(figure, path)


def agreement_figure(
    points: Mapping[str, tuple[NDArray, NDArray]],
    limits: Mapping[str, tuple[float, float, float]],
    path: str | os.PathLike,
) -> None:
    """Draw differences over means, with the bias and the limits of agreement, a panel a method (Bland-Altman).

    Args:
      points: reference and method [ppm].
      limits: bias, lower and upper limit of each.
      path: without a suffix.
    """
    figure, panels = _panels(len(points))
    differences = np.concatenate([y - x for x, y in points.values()]) if points else np.zeros(1)
    low, high = _range(differences)
    for axes, (method, (x, y)) in zip(panels, points.items()):
        axes.scatter((x + y) / 2, y - x, color=COLOURS[0], **POINT)
        for level, style in zip(limits[method], ("-", "--", "--")):
            if np.isfinite(level):
                axes.axhline(level, color=COLOURS[1], linewidth=1, linestyle=style)
        axes.set_title(f"{method}: bias {limits[method][0]:+.4f} ppm", fontsize=8, loc="left")
        axes.set_xlabel("mean of both [ppm]", fontsize=7)
        axes.set_ylabel("difference [ppm]", fontsize=7)
        axes.set_ylim(low, high)
        _finish(axes)
    write_both(figure, path)


def weight_figure(rows: Sequence[Mapping[str, float]], path: str | os.PathLike) -> None:
    """Draw variation over orientations and error over MEDI's weight.

    Args:
      rows: with "weight", "variation" and, where known, "nrmse_truth", "nrmse_cosmos", "lambda".
      path: without a suffix.
    """
    figure = Figure((3.5, 2.8), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    key = "lambda" if all("lambda" in row for row in rows) else "weight"
    x = [row[key] for row in rows]
    axes.plot(x, [1000 * row["variation"] for row in rows], color=COLOURS[0], marker="o", markersize=3)
    axes.set_xscale("log")
    axes.set_xlabel("MEDI's lambda" if key == "lambda" else "weight [ppm mm]", fontsize=8)
    axes.set_ylabel("std over orientations [ppb]", fontsize=8, color=COLOURS[0])
    _finish(axes)
    errors = [name for name in ("nrmse_truth", "nrmse_cosmos") if all(name in row for row in rows)]
    if errors:
        other = axes.twinx()
        for colour, name in zip(COLOURS[1:], errors):
            label = f"NRMSE, {name.removeprefix('nrmse_').replace('cosmos', 'COSMOS')}"
            other.plot(x, [row[name] for row in rows], color=colour, marker="s", markersize=3, label=label)
        other.set_ylabel("NRMSE [%]", fontsize=8)
        other.tick_params(labelsize=7)
        other.legend(fontsize=7, frameon=False)
    write_both(figure, path)


def _panels(count: int):
    columns = min(max(count, 1), 3)
    lines = -(-max(count, 1) // columns)
    figure = Figure((2.35 * columns, 2.3 * lines), facecolor="white", layout="constrained")
    return figure, [figure.add_subplot(lines, columns, i + 1) for i in range(count)]


def _range(values: ArrayLike) -> tuple[float, float]:
    values = np.asarray(values)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.01
    return low - margin, high + margin


def _finish(axes) -> None:
    axes.tick_params(labelsize=7)
    axes.grid(color="#e8e8e8", linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
