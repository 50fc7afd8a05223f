"""The histogram of a map."""

import os

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from qsmjax.report.figures import write_figure


def histogram(
    values: ArrayLike, path: str | os.PathLike, *, label: str = "chi [ppm]", bins: int = 200, dpi: int = 110
) -> None:
    """Draw how often each value occurs, linear and logarithmic, and write a PNG.

    Args:
      values: of the voxels in the mask.
      path: where to write; the file appears whole or not at all.
      label: what the values are.
      bins: between the 0.05th percentile and the 99.95th; what lies beyond is counted at the ends.
      dpi: dots per inch.
    """
    flat = np.asarray(values, np.float64).ravel()
    low, high = np.percentile(flat, (0.05, 99.95)) if flat.size else (-1.0, 1.0)
    low, high = (low, high) if high > low else (low - 1, low + 1)
    figure = Figure((8.0, 2.8), facecolor="white", layout="constrained")
    for axes, scale in zip(figure.subplots(1, 2), ("linear", "log")):
        axes.hist(np.clip(flat, low, high), bins=bins, range=(low, high), color="#0b6fa4")
        axes.set_yscale(scale)
        axes.set_title(f"voxels, {scale} scale", fontsize=9, loc="left")
        axes.set_xlabel(label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.axvline(0, color="#7f7f7f", linewidth=0.8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    write_figure(figure, path, dpi)
