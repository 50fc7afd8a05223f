"""The maps of a study: three planes with their differences, the orientations beside each other, the cortex enlarged.

Every figure is written as PNG and PDF. Planes are shown as in `figures`; those of one figure share their place.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from qsmjax.io.aside import write_aside
from qsmjax.report.figures import CHI_WINDOW, FAINT, GREY, INK, PAPER, crop_box, middle_of, plane_of
from qsmjax.report.orientation import upright

DIFFERENCE_WINDOW = (-0.05, 0.05)
CORTEX_WINDOW = (-0.05, 0.05)
CELL = 1.5
"""Height of a picture [inch]."""


def map_figure(
    maps: Mapping[str, NDArray],
    reference: str,
    path: str | os.PathLike,
    *,
    affine: NDArray,
    mask: NDArray,
    window: tuple[float, float] = CHI_WINDOW,
) -> None:
    """Draw three planes of every map, and of its difference from one of them, a row each.

    Args:
      maps: (x, y, z) on one grid, under their titles.
      reference: the title of the map that the others are taken from.
      path: without a suffix.
      affine: voxel index to world.
      mask: of the head.
      window: lowest and highest value shown [ppm].
    """
    inside, size = upright(mask, affine)
    point, box = middle_of(inside), crop_box(inside)
    rows = []
    for title, chi in maps.items():
        planes = [_three(np.where(mask, chi, np.nan), affine, point, box)]
        if title != reference:
            planes.append(_three(np.where(mask, chi - maps[reference], np.nan), affine, point, box))
        rows.append((title, planes))
    edges = [(size[0], size[1]), (size[0], size[2]), (size[1], size[2])]
    heads = ["axial", "coronal", "sagittal", *(f"{p} - {reference}" for p in ("axial", "coronal", "sagittal"))]
    limits = [window] * 3 + [DIFFERENCE_WINDOW] * 3
    cells = [(title, [plane for part in planes for plane in part]) for title, planes in rows]
    write_both(_grid(cells, heads, edges * 2, limits), path)


def orientation_figure(
    maps: Mapping[str, Sequence[NDArray]], names: Sequence[str], path: str | os.PathLike, *, affine: NDArray
) -> None:
    """Draw one axial plane of every method, a row each, in every orientation, a column each.

    Args:
      maps: for each title a volume an orientation, all on one grid, NaN outside.
      names: of the orientations.
      path: without a suffix.
      affine: voxel index to world.
    """
    first = next(iter(maps.values()))[0]
    inside, size = upright(np.isfinite(first), affine)
    point, box = middle_of(inside), crop_box(inside)
    cells = [(title, [_three(v, affine, point, box)[0] for v in volumes]) for title, volumes in maps.items()]
    edge = (size[0], size[1])
    write_both(_grid(cells, list(names), [edge] * len(names), [CHI_WINDOW] * len(names)), path)


def cortex_figure(
    maps: Mapping[str, NDArray], path: str | os.PathLike, *, affine: NDArray, mask: NDArray, width: float = 55.0
) -> None:
    """Draw a piece of the cortex, enlarged: the back of the brain on the right, three quarters up.

    Args:
      maps: (x, y, z) on one grid, under their titles.
      path: without a suffix.
      affine: voxel index to world.
      mask: of the head.
      width: of the piece [mm].
    """
    inside, size = upright(mask, affine)
    box = crop_box(inside)
    level = box[2].start + int(0.72 * (box[2].stop - box[2].start))
    pictures = []
    across = np.nonzero(inside[:, :, level].any(1))[0], np.nonzero(inside[:, :, level].any(0))[0]
    last, first = int(across[0].max()), int(across[1].min())
    n, m = int(width / size[0]), int(width / size[1])
    for chi in maps.values():
        plane = upright(np.where(mask, chi, np.nan), affine).volume[:, :, level]
        pictures.append(plane[max(last - n, 0) : last + 2, max(first - 1, 0) : first + m].T)
    edges = [(size[0], size[1])] * len(pictures)
    write_both(_grid([("", pictures)], list(maps), edges, [CORTEX_WINDOW] * len(pictures), cell=2.0), path)


def write_both(figure: Figure, path: str | os.PathLike, *, dpi: int = 150) -> None:
    """Write a figure as PNG and as PDF, each whole or not at all.

    Args:
      figure: what to write.
      path: without a suffix.
      dpi: dots per inch of the PNG, and of pictures in the PDF.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    for kind in ("png", "pdf"):
        # without the date the same figures give the same file
        metadata = {"CreationDate": None} if kind == "pdf" else None
        with write_aside(target.with_name(f"{target.name}.{kind}")) as temporary:
            figure.savefig(temporary, format=kind, dpi=dpi, facecolor=figure.get_facecolor(), metadata=metadata)


def _three(volume: NDArray, affine: NDArray, point: tuple[int, ...], box: list[slice]) -> list[NDArray]:
    view = upright(volume, affine).volume
    return [plane_of(view, axis, point, box) for axis in (2, 1, 0)]


def _grid(
    rows: list[tuple[str, list[NDArray]]],
    heads: list[str],
    edges: list[tuple[float, float]],
    limits: list[tuple[float, float]],
    *,
    cell: float = CELL,
) -> Figure:
    """Lay out pictures true to scale on black: a column a head, a row a title, a colour bar for each window."""
    fullest = max((pictures for _, pictures in rows), key=len)
    extents = [(p.shape[1] * e[0], p.shape[0] * e[1]) for p, e in zip(fullest, edges)]
    inch = cell / max(height for _, height in extents)
    gap, name, head, foot = 0.05, 0.75 if any(t for t, _ in rows) else 0.05, 0.25, 0.42
    wide = max(name + sum(width for width, _ in extents) * inch + gap * (len(extents) + 1), 3.0)
    tall = head + len(rows) * (cell + gap) + foot
    figure = Figure((wide, tall), facecolor=PAPER)
    write = lambda x, y, text, **style: figure.text(
        x / wide, y / tall, text, **{"color": INK, "fontsize": 8, "parse_math": False, **style}
    )
    starts = name + np.cumsum([0.0, *(width * inch + gap for width, _ in extents)])
    for start, (width, _), text in zip(starts, extents, heads):
        write(start + width * inch / 2, tall - 0.06, text, color=FAINT, ha="center", va="top", fontsize=7)
    shown: dict[tuple[float, float], tuple] = {}
    for row, (title, pictures) in enumerate(rows):
        bottom, left = tall - head - (row + 1) * (cell + gap), name
        write(gap, bottom + cell / 2, title, va="center")
        for column, (picture, edge) in enumerate(zip(pictures, edges)):
            width, height = picture.shape[1] * edge[0] * inch, picture.shape[0] * edge[1] * inch
            place = (left / wide, (bottom + (cell - height) / 2) / tall, width / wide, height / tall)
            axes = figure.add_axes(place)
            axes.set_axis_off()
            low, high = limits[column]
            image = axes.imshow(
                np.ma.masked_invalid(picture), cmap=GREY, vmin=low, vmax=high, origin="lower", aspect="auto"
            )
            shown.setdefault((low, high), (image, left))
            left += width + gap
    for (low, high), (image, left) in shown.items():
        bar_axes = figure.add_axes((left / wide, 0.27 / tall, 1.2 / wide, 0.07 / tall))
        bar = figure.colorbar(image, cax=bar_axes, orientation="horizontal", ticks=[low, 0, high])
        bar.outline.set_edgecolor(FAINT)
        bar_axes.tick_params(colors=INK, labelsize=6, length=2, color=FAINT)
        write(left + 1.28, 0.26, "ppm", fontsize=6)
    return figure
