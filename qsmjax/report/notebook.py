"""A viewer in a notebook, in one line: `view({"chi": chi, "field": field}, affine)`.

It is NiiVue as ipyniivue wraps it: `pip install 'qsmjax[notebook]'`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qsmjax.io.embedded import embedded_volume
from qsmjax.report.figures import CHI_WINDOW


def view(
    volumes: ArrayLike | Mapping[str, ArrayLike],
    affine: ArrayLike | None = None,
    *,
    window: tuple[float, float] = CHI_WINDOW,
    height: int = 400,
) -> Any:
    """Show a volume, or several over one another, in a notebook.

    Args:
      volumes: (x, y, z), or several under their names; the first lies below, the others over it, half transparent.
      affine: 4x4, voxel index to world [mm]; by default voxels of 1 mm.
      window: lowest and highest value shown of the first [ppm]; the others choose their own.
      height: of the picture [pixels].

    Returns:
      The widget (ipyniivue's NiiVue): the last value of a cell shows it, its `volumes` can be changed afterwards.

    Raises:
      ImportError: if ipyniivue is not installed.
      ValueError: if a volume has not three axes.
    """
    try:
        import ipyniivue
    except ImportError as error:
        raise ImportError("view needs ipyniivue, which is not installed: pip install 'qsmjax[notebook]'") from error
    named = volumes if isinstance(volumes, Mapping) else {"volume": volumes}
    matrix, layers = np.eye(4) if affine is None else np.asarray(affine), []
    for number, (name, volume) in enumerate(named.items()):
        array = np.asarray(volume)
        if array.ndim != 3:
            raise ValueError(
                f"{name} must have the axes x, y, z alone, got shape {array.shape}: pick one of its volumes"
            )
        layer = {
            "data": embedded_volume(array, matrix),
            "name": f"{name}.nii.gz",
            "opacity": 1.0 if number == 0 else 0.5,
        }
        below = {"colormap": "gray", "cal_min": window[0], "cal_max": window[1]}
        layers.append(ipyniivue.Volume(**layer, **(below if number == 0 else {"colormap": "warm"})))
    widget = ipyniivue.NiiVue(height=height)
    widget.load_volumes(layers)
    return widget
