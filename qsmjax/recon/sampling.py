"""What an undersampled k-space holds: a regular lattice over the two phase-encoding axes and a full centre.

k-space is (coil, x, y, z) with k = 0 at n // 2 along each axis, x the readout, zero where nothing was sampled.
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike


class Sampling(NamedTuple):
    """Where the samples are.

    Attributes:
      acceleration: steps of the lattice along y and z.
      offset: its first sample along y and z.
      calibration: ((first, end), (first, end)) of the full region along y and z.
    """

    acceleration: tuple[int, int]
    offset: tuple[int, int]
    calibration: tuple[tuple[int, int], tuple[int, int]]


def find_sampling(kspace: ArrayLike) -> Sampling:
    """Read lattice and calibration region off the samples that are not zero (on the host).

    The corners beyond an ellipse, or one end of an axis, need not be sampled.

    Raises:
      ValueError: if the centre is not sampled, or the samples around it leave gaps in every lattice that they stand on,
        as sheared (CAIPIRINHA) and random ones do.
    """
    array = np.asarray(kspace)
    if array.ndim != 4:
        raise ValueError(f"kspace must have the axes coil x y z, got shape {array.shape}: give 2-D data a z of one")
    sampled = np.any(array != 0, axis=(0, 1))
    if not sampled[tuple(n // 2 for n in sampled.shape)]:
        raise ValueError(
            "kspace must be sampled at its centre (k = 0 at n // 2), got zeros there: shift it with fftshift"
        )
    calibration = _grow(sampled)
    outside = sampled.copy()
    outside[tuple(slice(*ends) for ends in calibration)] = False
    if not outside.any():
        return Sampling((1, 1), (0, 0), calibration)
    places = [np.unique(p) for p in np.nonzero(outside)]
    steps = [int(np.gcd.reduce(np.diff(p))) if p.size > 1 else n for p, n in zip(places, sampled.shape)]
    offsets = [int(p[0] % step) for p, step in zip(places, steps)]
    lattice = sampled[offsets[0] :: steps[0], offsets[1] :: steps[1]]
    if gaps := int(((_spanned(lattice, 0) | _spanned(lattice, 1)) & ~lattice).sum()):
        raise ValueError(
            f"kspace must be sampled on a lattice along y and z (no shear, nothing random), got {gaps} gaps in steps "
            f"of {steps[0]} and {steps[1]}: reconstruct it elsewhere and give its phase"
        )
    return Sampling((steps[0], steps[1]), (offsets[0], offsets[1]), calibration)


def _spanned(lattice: np.ndarray, axis: int) -> np.ndarray:
    """Mark, in each line along an axis, what lies between its first sample and its last."""
    begun = np.maximum.accumulate(lattice, axis)
    return begun & np.flip(np.maximum.accumulate(np.flip(lattice, axis), axis), axis)


def _grow(sampled: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grow a rectangle from the centre, side after side, while all that it takes in is sampled."""
    y0, z0 = (n // 2 for n in sampled.shape)
    y1, z1 = y0 + 1, z0 + 1
    grew = True
    while grew:
        grew = False
        if y0 > 0 and sampled[y0 - 1, z0:z1].all():
            y0, grew = y0 - 1, True
        if y1 < sampled.shape[0] and sampled[y1, z0:z1].all():
            y1, grew = y1 + 1, True
        if z0 > 0 and sampled[y0:y1, z0 - 1].all():
            z0, grew = z0 - 1, True
        if z1 < sampled.shape[1] and sampled[y0:y1, z1].all():
            z1, grew = z1 + 1, True
    return (y0, y1), (z0, z1)
