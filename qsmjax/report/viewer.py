"""The interactive part of a page: NiiVue, with the volumes beside it in the page, so that nothing is fetched.

NiiVue is `assets/niivue.umd.js`, as its npm package holds it (`assets/niivue-licences.txt`).
"""

import base64
import importlib.resources
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from qsmjax.io.embedded import embedded_volume
from qsmjax.report.document import data, script

STYLE = """
.viewer-planes { height: 26rem }
.viewer { background: #000; padding: .5rem } .viewer p { color: #bbb; margin: .3rem 0; font-size: .9rem }
.viewer label { margin-right: 1.2rem; white-space: nowrap } .viewer input { vertical-align: middle; width: 9rem }
"""

CONTROLS = """<div class="viewer"><div class="viewer-planes"><canvas id="viewer-canvas" role="img"
aria-label="slices of the volumes; the line below tells where"></canvas></div>
<p><label>show <select id="viewer-volume"></select></label><label>over it <select id="viewer-over"></select>
<input id="viewer-opacity" type="range" aria-label="its opacity" min="0" max="1" step="0.05" value="0.4"></label>
<label>as <select id="viewer-planes"></select></label></p>
<p><label>from <input id="viewer-low" type="range"></label><label>to <input id="viewer-high" type="range"></label>
<span id="viewer-window"></span></p><p id="viewer-where" role="status">starting ...</p></div>"""


class Layer(NamedTuple):
    """One volume of the viewer.

    Attributes:
      title: what it is.
      volume: (x, y, z); all layers on one grid.
      window: lowest and highest value shown at first; what it may be moved to follows from it.
      units: of its values.
      colours: one of NiiVue's colour maps.
    """

    title: str
    volume: ArrayLike
    window: tuple[float, float]
    units: str = "ppm"
    colours: str = "gray"


def viewer(layers: Sequence[Layer], affine: ArrayLike, box: Sequence[slice] = (slice(None),) * 3) -> str:
    """Write the viewer, the first layer shown.

    Args:
      layers: the volumes.
      affine: 4x4, voxel index to world [mm].
      box: the part of the volumes to keep in the page.
    """
    described = [
        {
            "name": f"layer{number}",
            "title": layer.title,
            "units": layer.units,
            "low": float(layer.window[0]),
            "high": float(layer.window[1]),
            "limit": 3 * max(map(abs, map(float, layer.window))) or 1.0,
            "signed": layer.window[0] < 0,
            "colours": layer.colours,
            "nifti": base64.b64encode(embedded_volume(np.asarray(layer.volume), affine, box)).decode(),
        }
        for number, layer in enumerate(layers)
    ]
    assets = importlib.resources.files("qsmjax.report") / "assets"
    scripts = [script((assets / name).read_text(encoding="utf-8")) for name in ("niivue.umd.js", "viewer.js")]
    return "\n".join([CONTROLS, data("layers", described), *scripts])
