"""Field to susceptibility. Every method is (FieldMap, *, options) -> Solution, and stands in `METHODS` by name.

- `direct`: tkd, tsvd, tikhonov: closed forms
- `tv`: total variation, chi zero outside the mask
- `nonlinear`: nltv, l1, hd: the same against the complex signal, or against outliers
- `tgv`: tgv, nltgv: total generalised variation, for maps with slopes
- `medi`: medi: the same, free at the edges of the magnitude
- `harmonic`: wh: the same with a harmonic field as second unknown
- `cosmos`: cosmos: several orientations, a sequence of FieldMaps; not in `METHODS`
- `descent`: ndi, rts: early stopping, and the cone filled in
- `streaks`: ilsqr: least squares, its streaks estimated and taken off
- `one_step`: tfi, tgv_onestep: from the total field, the background a second unknown (`taken` tells which do)
- `removal`: the local field that total field inversion leaves: the default background removal

Parts that the methods share:

- `solution`: `Solution`, what each returns
- `method`: `solve_NAME` on arrays made `NAME` on a field map, with the documentation that all share
- `frame`: the padded box of the head in which each runs
- `data_terms`: linear, nonlinear and robust, as proximal maps
- `variation`: the solver of every method that penalises |∇chi|₁
- `weighting`: trust in each voxel, the noise level, and the weight that it asks for
"""

from collections.abc import Callable

from qsmjax.inversion.cosmos import cosmos
from qsmjax.inversion.descent import ndi, rts
from qsmjax.inversion.direct import tikhonov, tkd, tsvd
from qsmjax.inversion.harmonic import wh
from qsmjax.inversion.medi import medi
from qsmjax.inversion.method import taken
from qsmjax.inversion.nonlinear import hd, l1, nltv
from qsmjax.inversion.one_step import tfi, tgv_onestep
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.streaks import ilsqr
from qsmjax.inversion.tgv import nltgv, tgv
from qsmjax.inversion.tv import tv

METHODS: dict[str, Callable[..., Solution]] = {
    "tkd": tkd,
    "tsvd": tsvd,
    "tikhonov": tikhonov,
    "tv": tv,
    "nltv": nltv,
    "tgv": tgv,
    "nltgv": nltgv,
    "l1": l1,
    "hd": hd,
    "medi": medi,
    "wh": wh,
    "ndi": ndi,
    "rts": rts,
    "ilsqr": ilsqr,
    "tfi": tfi,
    "tgv_onestep": tgv_onestep,
}

__all__ = ["METHODS", "Solution", "cosmos", "taken", *METHODS]
