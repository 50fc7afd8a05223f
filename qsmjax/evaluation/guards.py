"""Is this the input that it is taken for? Warnings about what makes a plausible and wrong map.

Units wrong by 2 pi, a sign the other way round, phase that the scanner high-pass filtered, a total field taken for a
local one: a map comes out of each. All are told from the local field and its map alone, by figures of `plausibility`
whose limits were chosen on simulated heads (`benchmarks/guards.py` prints how often right and wrong inputs are warned
about).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from qsmjax.evaluation import plausibility
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, spans_head

SPAN = (0.024, 0.15)
"""Usual distance from a map's 5th to its 95th percentile [ppm]: 0.045 to 0.085, whose centre stands in the middle."""

FEW_LOW, FEW_HARMONIC = 2.0, 0.008
"""`low_frequencies` and `harmonic_part` below which a field, if by both, is mildly filtered: 5 and 0.017 at least on
heads 01 to 03, 0.7 to 2.2 and 0.003 to 0.011 without what is smoother than 40 mm."""


@dataclasses.dataclass(frozen=True)
class Figures:
    """What the guards look at.

    Attributes:
      std: standard deviation of the local field [ppm].
      span: of the map, from its 5th to its 95th percentile [ppm].
      balance: `plausibility.tail_balance` of the map.
      rim: `plausibility.rim_excess` of the local field.
      harmonic: `plausibility.harmonic_part` of it.
      low: `plausibility.low_frequencies` of it.
    """

    std: float
    span: float
    balance: float
    rim: float
    harmonic: float
    low: float


def input_warnings(local: FieldMap, chi: ArrayLike, *, total: bool = False) -> list[str]:
    """Say what speaks against a local field's being what it was taken for, a line each.

    Args:
      local: local field; of less than a head nothing is said.
      chi: its map as the inversion gave it [ppm].
      total: the map was made of a total field in one step, and that is given: the map's own field is judged.
    """
    if not spans_head(local):
        return []
    if total:
        local = dataclasses.replace(
            local, field=jnp.where(local.mask, forward_field(jnp.asarray(chi), local.geometry), 0)
        )
    return alarms(figures_of(local, chi))


def figures_of(local: FieldMap, chi: ArrayLike) -> Figures:
    """Take the figures of a local field and its map [ppm]."""
    field, mask, grid = np.asarray(local.field, np.float64), np.asarray(local.mask), local.geometry
    values = np.asarray(chi, np.float64)
    low, high = np.percentile(values[mask], (5, 95))
    return Figures(
        std=float(field[mask].std()),
        span=float(high - low),
        balance=plausibility.tail_balance(values, mask, grid),
        rim=plausibility.rim_excess(field, mask, grid),
        harmonic=plausibility.harmonic_part(field, mask, grid),
        low=plausibility.low_frequencies(field, mask, grid),
    )


def alarms(found: Figures) -> list[str]:
    """Say what is unusual, a line each: what was found, what is usual, what it may come from and the cure."""
    told = []
    if found.rim > plausibility.RIM_LIMIT or found.harmonic > plausibility.HARMONIC_LIMIT:
        told.append(
            f"background field is left: the local field is {found.rim:.1f} times as strong at the mask's rim as deep "
            f"inside (usual: below {plausibility.RIM_LIMIT}), {found.harmonic:.0%} of it is harmonic (below "
            f"{plausibility.HARMONIC_LIMIT:.0%}): give --input totalfield, or another background "
            "method, or a smaller mask"
        )
    if found.low < plausibility.LOW_LIMIT or (found.low < FEW_LOW and found.harmonic < FEW_HARMONIC):
        told.append(
            f"the phase may be high-pass filtered: the local field has {found.low:.2f} times the density at low "
            f"frequencies (usual: above {FEW_LOW:g}), {found.harmonic:.1%} of it is harmonic (above "
            f"{FEW_HARMONIC:.1%}), and no method brings back what is gone: export unfiltered phase"
        )
    if not SPAN[0] < found.span < SPAN[1]:
        told.append(
            f"the units may be wrong: the map spans {found.span:.2g} ppm from its 5th to its 95th percentile (usual: "
            f"{SPAN[0]:g} to {SPAN[1]:g}): look at --units, --b0 and --te, and for a factor of "
            "2 pi"
        )
    if found.balance < plausibility.TAIL_LIMIT:
        told.append(
            f"the sign may be turned: the map reaches further down than up ({found.balance:+.2f}; veins and iron make "
            "it positive): if the basal ganglia are dark, multiply the field by -1, or tell GE's phase by "
            '"Manufacturer": "GE" in --params'
        )
    return told
