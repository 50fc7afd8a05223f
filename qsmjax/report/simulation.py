"""The picture of a simulated scan: susceptibility, local field, wrapped phase and magnitude beside each other."""

import os
from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from qsmjax.report.figures import write_figure


def scan_picture(
    volumes: Mapping[str, tuple[ArrayLike, float, float, str]], path: str | os.PathLike, *, dpi: int = 110
) -> None:
    """Draw the axial and coronal middle of each volume, a column each, and write a PNG.

    Args:
      volumes: title -> volume (x, y, z), lowest and highest value shown, and its unit; all on one grid.
      path: where to write; the file appears whole or not at all.
      dpi: dots per inch.
    """
    figure = Figure((3.0 * len(volumes), 6.6), facecolor="black", layout="constrained")
    axes = figure.subplots(2, len(volumes), squeeze=False)
    for column, (title, (volume, low, high, unit)) in zip(axes.T, volumes.items()):
        array = np.asarray(volume)
        planes = (array[:, :, array.shape[2] // 2], array[:, array.shape[1] // 2])
        for place, plane in zip(column, planes):
            image = place.imshow(plane.T, cmap="gray", vmin=low, vmax=high, origin="lower")
            place.set_axis_off()
        column[0].set_title(title, color="white", fontsize=11)
        bar = figure.colorbar(image, ax=column[1], orientation="horizontal", shrink=0.8, ticks=[low, high])
        bar.ax.set_xticklabels([f"{low:g} {unit}", f"{high:g} {unit}"], color="white", fontsize=8)
    write_figure(figure, path, dpi)
