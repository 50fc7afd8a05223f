"""From the total to the local field.

- `dipoles`: sources inside and outside fitted together (`joint`), or outside alone (`pdf`)
- `sharp`: spherical means (`v_sharp`, `sharp`, `resharp`)
- `boundary`: the harmonic function that meets the field at the mask's edge (`ismv`, `lbv`)
- `edge`: voxels beside air whose field is not to be believed
- `frame`: the padded box in which they run

Every method is `name(field_map, *, options) -> FieldMap`, whose mask is where the local field is valid.
"""

from collections.abc import Callable

from qsmjax.background.boundary import ismv, lbv
from qsmjax.background.dipoles import joint, pdf
from qsmjax.background.sharp import resharp, sharp, v_sharp
from qsmjax.physics.field_map import FieldMap

METHODS: dict[str, Callable[..., FieldMap]] = {
    "joint": joint,
    "vsharp": v_sharp,
    "sharp": sharp,
    "resharp": resharp,
    "ismv": ismv,
    "pdf": pdf,
    "lbv": lbv,
}
"""Every method by the name that the command line takes."""
