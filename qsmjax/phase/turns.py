"""Turns that evenly spaced echoes cannot see, told by the smooth initial phase.

A field off by one turn between echoes, 1/dTE, fits evenly spaced echoes as well as the right one, but then

    phase₀ is off by 2π TE₁ / dTE

and stands out from its neighbours, unless TE₁ is a multiple of dTE. Where the field rises by more than half a turn from
voxel to voxel (beside bone and air) no path through space is right, and this is all that tells.
"""

from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.smooth import gaussian_smooth
from qsmjax.phase.unwrap import SAME_SPACING, wrap

REACH = 4.0
"""Standard deviation of the neighbourhood [voxels]: coils' phases are smooth over it, regions off are smaller."""
COHERENT = 0.5
"""Length of the neighbourhood's mean phasor below which its phase is no guide."""
TURNS = (0, -1, 1, -2, 2, -3, 3)
CLOSE = 1.0
"""Standard deviation of the neighbourhood whose field decides between turns of the same phase [voxels]."""
TOLL = 0.3
"""Phase [rad] that any turn must gain."""
SLIGHT = 0.2
"""Phase [rad] that a turn of the field away from the neighbours weighs."""
PASSES = 2


def settle_turns(
    field: Volume,
    phase: Volume,
    weight: Volume,
    times: Sequence[float],
    per_second: Float[Array, ""],
    mask: Mask,
    known: Volume | None = None,
) -> Volume:
    """Move voxels by whole turns to where their initial phase agrees best with their neighbours'.

    Args:
      field: [ppm], x y z.
      phase: phase at TE = 0 that goes with it [rad].
      weight: how far each voxel is to be trusted, such as its squared signal.
      times: echo times [s]; unevenly spaced ones need no help, and the field is returned as it came.
      per_second: phase that one ppm makes in a second [rad].
      mask: voxels that count.
      known: initial phase where it is known [rad]; None to take the neighbourhood's.

    Returns:
      The field [ppm].
    """
    gaps = [later - earlier for earlier, later in pairwise(times)]
    share = times[0] / gaps[0] if gaps else 0.0
    lone = abs(share - round(share)) < 0.1
    if not gaps or lone or max(gaps) > min(gaps) * (1 + SAME_SPACING):
        return field
    turn = 2 * jnp.pi / (per_second * gaps[0])
    trusted = jnp.where(mask, weight, 0)
    trusted = trusted / jnp.maximum(jnp.max(trusted), jnp.finfo(jnp.float32).tiny)
    moved = jnp.zeros_like(field)
    for _ in range(PASSES):
        own = phase - 2 * jnp.pi * share * moved
        if known is None:
            around = gaussian_smooth(trusted * jnp.exp(1j * own), (REACH,) * 3)
            amount = gaussian_smooth(trusted, (REACH,) * 3)
            clear = jnp.abs(around) > COHERENT * amount
            aim = jnp.angle(jnp.where(around == 0, 1, around))
        else:
            clear, aim = mask, known
        off = lambda turns, own=own, aim=aim: jnp.abs(wrap(own - aim - 2 * jnp.pi * share * turns))
        # turns that the phase cannot tell apart: the one closest to those neighbours whose phase is right
        right = trusted * (off(0) < 0.5 * jnp.pi * min(share % 1, 1 - share % 1))
        near, count = (gaussian_smooth(right * a, (CLOSE,) * 3) for a in (field + turn * moved, jnp.ones_like(field)))
        apart = (field - near / jnp.maximum(count, 1e-6 * jnp.max(count))) / turn + moved
        best, least = jnp.zeros_like(field), jnp.full_like(field, jnp.inf)
        # one after the other: all at once would take a hundred volumes of memory
        for turns in TURNS:
            # a toll keeps noise from turning voxels
            cost = off(turns) + TOLL * (turns != 0) + SLIGHT * jnp.abs(apart + turns)
            best, least = jnp.where(cost < least, turns, best), jnp.minimum(cost, least)
        moved = moved + jnp.where(clear & mask, best, 0)
    return field + turn * moved
