"""Figures: three planes through volumes, and learning curves, written as PNG.

Planes are shown as a viewer shows them: superior (or anterior) up, the subject's right on the picture's right, true to
scale whatever the voxel size. Nothing here touches matplotlib's global state, so that figures can be made from threads.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_fill_holes

from qsmjax.io.aside import write_aside
from qsmjax.report.orientation import upright

INK, PAPER, FAINT = "#e8e8e8", "#000000", "#7a7a7a"
"""Volumes are shown on black, as in a viewer."""
CHI_WINDOW = (-0.1, 0.1)
"""The usual window of susceptibility maps [ppm]."""
GREY = colormaps["gray"].with_extremes(bad=PAPER)
PLANES = ("axial", "coronal", "sagittal")
ROW_HEIGHT = 2.6
"""Height of the tallest picture [inch]."""

Windows = tuple[float, float] | Sequence[tuple[float, float] | None] | None
COLOURS = ["#0b6fa4", "#d1495b", "#edae49", "#3a7d44", "#6c4f9c", "#7f7f7f", "#5bc0de", "#b0603a"]
"""Of curves, in turn."""


def three_plane(
    volumes: ArrayLike | Mapping[str, ArrayLike],
    path: str | os.PathLike,
    *,
    affine: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    window: Windows = CHI_WINDOW,
    units: str = "ppm",
    voxel_size: Sequence[float] = (1, 1, 1),
    centre: Sequence[int] | None = None,
    title: str = "",
    dpi: int = 150,
) -> None:
    """Draw the axial, coronal and sagittal plane of one volume or several, a row each, and write a PNG.

    Args:
      volumes: one volume (x, y, z), or several under their titles; all on one grid.
      path: where to write; the file appears whole or not at all.
      affine: voxel index to world; decides what is right, front and up, and the voxel size.
      mask: where the head is; planes go through its centre and are cropped to it, and what lies outside is black. By
        default where the first volume is not zero, holes filled.
      window: lowest and highest value shown, for all or one a volume; None for one that fits each volume (the 99th
        percentile of its size in the mask, about zero).
      units: written at the colour bar.
      voxel_size: edges of a voxel [mm], used where there is no affine.
      centre: voxel that the planes go through, in the volumes' own axes.
      title: written above all.
      dpi: dots per inch.

    Raises:
      ValueError: if a volume is not (x, y, z) or the grids differ.
    """
    rows = dict(volumes) if isinstance(volumes, Mapping) else {"": volumes}
    arrays = [np.asarray(v) for v in rows.values()]
    for name, array in zip(rows, arrays):
        if array.shape != arrays[0].shape:
            raise ValueError(f"volumes must be on one grid, got {arrays[0].shape} and {array.shape} ({name})")
    affine = np.diag([*map(float, voxel_size), 1.0]) if affine is None else affine
    inside = binary_fill_holes(arrays[0] != 0) if mask is None else np.asarray(mask) != 0
    if inside.shape != arrays[0].shape:
        raise ValueError(f"mask.shape must be {arrays[0].shape}, got {inside.shape}")
    windows = _windows(arrays, inside, window)
    shown = [upright(np.where(inside, array, np.nan), affine) for array in arrays]
    inside, size = upright(inside, affine)
    point = middle_of(inside) if centre is None else middle_of(upright(_at(centre, arrays[0].shape), affine).volume)
    box = crop_box(inside)
    pictures = [[plane_of(view.volume, axis, point, box) for axis in (2, 1, 0)] for view in shown]
    write_figure(_draw(pictures, list(rows), windows, size, units, title), path, dpi)


def learning_curve(
    rows: Sequence[Mapping[str, float]],
    path: str | os.PathLike,
    *,
    reference: Mapping[str, float] | None = None,
    reference_name: str = "TKD",
    step: str = "step",
    dpi: int = 150,
) -> None:
    """Draw the losses and the validation metrics of a training run over its steps, and write a PNG.

    Args:
      rows: one a record: its step, and any numbers under their names. A name that begins with "val" (as in "val_nrmse"
        or "val/nrmse") is a validation metric and gets a panel of its own; names that hold "loss" share one.
      path: where to write; the file appears whole or not at all.
      reference: what a classical method reaches, by the metric's name; drawn as a dashed line.
      reference_name: that method's name.
      step: the name of the step.
      dpi: dots per inch.

    Raises:
      ValueError: if there is no row with a step.
    """
    rows = [row for row in rows if step in row]
    if not rows:
        raise ValueError(f"rows must hold at least one record with {step!r}: train for a step first")
    names = list(dict.fromkeys(name for row in rows for name in row if name != step))
    numbers = [name for name in names if any(_is_number(row.get(name)) for row in rows)]
    metrics = [name for name in numbers if name.startswith("val")]
    losses = [name for name in numbers if "loss" in name and name not in metrics]
    panels = ([("loss", losses)] if losses else []) + [(name, [name]) for name in metrics]
    write_figure(_curves(rows, panels or [("", numbers)], dict(reference or {}), reference_name, step), path, dpi)


def pixels(path: str | os.PathLike) -> NDArray[np.uint8]:
    """Read a PNG's pixels, (rows, columns, RGB)."""
    return np.round(255 * imread(os.fspath(path))[..., :3]).astype(np.uint8)


def _windows(arrays: list[NDArray], inside: NDArray, window: Windows) -> list[tuple[float, float]]:
    one_for_all = window is None or isinstance(window[0], (int, float))
    each: list = [window] * len(arrays) if one_for_all else list(window or ())
    if len(each) != len(arrays):
        raise ValueError(f"window must be one pair or one for each of {len(arrays)} volumes, got {len(each)}")
    return [_fitting(array, inside) if limits is None else limits for array, limits in zip(arrays, each)]


def _fitting(array: NDArray, inside: NDArray) -> tuple[float, float]:
    """Choose a window about zero, with a round limit, that holds 99 % of the values."""
    values = np.abs(array[inside & np.isfinite(array)])
    limit = float(np.percentile(values, 99)) if values.size else 1.0
    limit = round_up(limit)
    return -limit, limit


def round_up(limit: float) -> float:
    """Round a limit up to one digit; one for zero."""
    if limit <= 0:
        return 1.0
    step = 10 ** np.floor(np.log10(limit))
    return float(np.ceil(limit / step) * step)


def _at(centre: Sequence[int], shape: tuple[int, ...]) -> NDArray:
    point = np.zeros(shape, bool)
    point[tuple(int(c) for c in centre)] = True
    return point


def middle_of(inside: NDArray) -> tuple[int, ...]:
    """Return the voxel at the centre of mass, or of the volume if the mask is empty."""
    if not inside.any():
        return tuple(n // 2 for n in inside.shape)
    return tuple(round(float(index.mean())) for index in np.nonzero(inside))


def crop_box(inside: NDArray) -> list[slice]:
    """Return the mask's box with a margin of a twentieth of its size."""
    if not inside.any():
        return [slice(0, n) for n in inside.shape]
    box = []
    for index, length in zip(np.nonzero(inside), inside.shape):
        first, last = int(index.min()), int(index.max()) + 1
        margin = max(2, (last - first) // 20)
        box.append(slice(max(first - margin, 0), min(last + margin, length)))
    return box


def plane_of(volume: NDArray, axis: int, point: tuple[int, ...], box: list[slice]) -> NDArray:
    """Cut one plane, rows from the bottom up."""
    cut = tuple(point[a] if a == axis else box[a] for a in range(3))
    return np.asarray(volume[cut], float).T


def _draw(pictures, titles, windows, size, units: str, title: str) -> Figure:
    edges = [(size[0], size[1]), (size[0], size[2]), (size[1], size[2])]
    extents = [(p.shape[1] * e[0], p.shape[0] * e[1]) for p, e in zip(pictures[0], edges)]
    inch = ROW_HEIGHT / max(height for _, height in extents)
    # inches: between pictures, for the colour bar, above a row for its title, above all for the planes' names
    gap, bar, name, head = 0.08, 0.75, 0.26 if any(titles) else 0.08, 0.3 + (0.32 if title else 0)
    wide = sum(width for width, _ in extents) * inch + 4 * gap + bar
    tall = head + len(pictures) * (ROW_HEIGHT + name)
    figure = Figure((wide, tall), facecolor=PAPER)

    def place(left: float, bottom: float, width: float, height: float):
        return figure.add_axes((left / wide, bottom / tall, width / wide, height / tall))

    def write(x: float, y: float, text: str, **style):
        figure.text(x / wide, y / tall, text, **{"color": INK, "va": "top", "parse_math": False, **style})

    write(gap, tall - 0.1, title, fontsize=12)
    for row, (planes, label, limits) in enumerate(zip(pictures, titles, windows)):
        bottom, left = tall - head - (row + 1) * (ROW_HEIGHT + name), gap
        write(gap, bottom + ROW_HEIGHT + name - 0.05, label, fontsize=10)
        for picture, edge, (width, height), plane in zip(planes, edges, extents, PLANES):
            axes = place(left, bottom + (ROW_HEIGHT - height * inch) / 2, width * inch, height * inch)
            image = _show(axes, picture, limits, smooth=edge[0] == edge[1])
            if row == 0:
                write(left + width * inch / 2, tall - head + 0.22, plane, color=FAINT, ha="center", fontsize=9)
            left += width * inch + gap
        _colour_bar(figure, image, place(left, bottom + 0.15 * ROW_HEIGHT, 0.09, 0.6 * ROW_HEIGHT), limits, units)
    return figure


def _show(axes, picture: NDArray, limits: tuple[float, float], *, smooth: bool):
    axes.set_axis_off()
    return axes.imshow(
        np.ma.masked_invalid(picture),
        cmap=GREY,
        vmin=limits[0],
        vmax=limits[1],
        origin="lower",
        aspect="auto",
        interpolation="lanczos" if smooth else "bilinear",
    )


def _colour_bar(figure: Figure, image, axes, limits: tuple[float, float], units: str) -> None:
    ticks = [limits[0], sum(limits) / 2, limits[1]]
    bar = figure.colorbar(image, cax=axes, ticks=ticks)
    bar.outline.set_edgecolor(FAINT)
    axes.tick_params(colors=INK, labelsize=8, length=2, color=FAINT)
    axes.set_yticklabels([f"{tick:.3g}".replace("-", "\N{MINUS SIGN}") for tick in ticks])
    axes.set_title(units, color=INK, fontsize=8, pad=5, loc="left")


def _curves(rows, panels, reference: dict[str, float], reference_name: str, step: str) -> Figure:
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure((4.0 * columns, 2.9 * lines), facecolor="white", layout="constrained")
    for number, (title, names) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, number)
        for colour, name in zip(COLOURS * (1 + len(names) // len(COLOURS)), names):
            points = [(row[step], row[name]) for row in rows if _is_number(row.get(name))]
            x, y = zip(*points)
            axes.plot(x, y, color=colour, linewidth=1.5, label=name, marker="." if len(points) < 40 else None)
        level = reference.get(title, reference.get(title.removeprefix("val_").removeprefix("val/")))
        if level is not None:
            axes.axhline(level, color="#555555", linestyle="--", linewidth=1, label=f"{reference_name} {level:.3g}")
        values = [row[name] for row in rows for name in names if _is_number(row.get(name))]
        if title == "loss" and values and min(values) > 0:
            axes.set_yscale("log")
        axes.set_title(
            title.replace("_", " ").replace("/", " ").replace("val ", "validation "), fontsize=10, loc="left"
        )
        axes.set_xlabel(step, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(color="#e3e3e3", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if len(names) > 1 or level is not None:
            axes.legend(fontsize=8, frameon=False)
    return figure


def _is_number(value) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(value))


def write_figure(figure: Figure, path: str | os.PathLike, dpi: int) -> None:
    """Write aside and rename, so that a reader never meets half a picture."""
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with write_aside(target) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, facecolor=figure.get_facecolor())
