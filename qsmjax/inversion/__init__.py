"""Local field to susceptibility. Every method is (FieldMap, *, options) -> Solution, and stands in `METHODS` by name.

- `direct`: tkd, tsvd, tikhonov: closed forms
- `tv`: total variation, chi zero outside the mask

Parts that the methods share:

- `solution`: `Solution`, what each returns
- `frame`: the padded box of the head in which each runs
- `weighting`: trust in each voxel, the noise level, and the weight that it asks for
"""

from collections.abc import Callable

from qsmjax.inversion.direct import tikhonov, tkd, tsvd
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.tv import tv

METHODS: dict[str, Callable[..., Solution]] = {
    "tkd": tkd,
    "tsvd": tsvd,
    "tikhonov": tikhonov,
    "tv": tv,
}
