"""What an undersampled k-space holds: a regular lattice over the two phase-encoding axes and a full centre.

k-space is (coil, x, y, z) with k = 0 at n // 2 along each axis, x the readout, zero where nothing was sampled.
"""

import itertools
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jax.typing import ArrayLike


class Sampling(NamedTuple):
    """Where the samples are.

    Attributes:
      acceleration: steps of the lattice along y and z.
      offset: its first sample along y and z.
      calibration: ((first, end), (first, end)) of the full region along y and z; empty where k = 0 was not sampled.
    """

    acceleration: tuple[int, int]
    offset: tuple[int, int]
    calibration: tuple[tuple[int, int], tuple[int, int]]


def find_sampling(kspace: ArrayLike, *, full_centre: bool = True) -> Sampling:
    """Read lattice and calibration region off the samples that are not zero (on the host).

    The lattice is the densest that the samples outside the full centre stand on without gaps. The corners beyond an
    ellipse, or one end of an axis, need not be sampled.

    Args:
      kspace: coil x y z.
      full_centre: whether k = 0 must be sampled; where a calibration was measured apart, the lattice may pass it by.

    Raises:
      ValueError: if the centre is not sampled or not where the signal is, the samples around it leave gaps in every
        lattice that they stand on, as sheared (CAIPIRINHA) and random ones do, or stand on one line alone.
    """
    array = np.asarray(kspace)
    if array.ndim != 4:
        raise ValueError(f"kspace must have the axes coil x y z, got shape {array.shape}: give 2-D data a z of one")
    sampled = np.any(array != 0, axis=(0, 1))
    middle = (sampled.shape[0] // 2, sampled.shape[1] // 2)
    if full_centre and not sampled[middle]:
        raise ValueError(
            "kspace must be sampled at its centre (k = 0 at n // 2), got zeros there: shift it with fftshift, or give "
            "a calibration measured apart"
        )
    for axis, n, places in zip("yz", sampled.shape, np.nonzero(sampled)):
        if (got := np.unique(places).size) < min(2, n):
            raise ValueError(f"kspace must hold at least two lines along {axis}, to tell the step between, got {got}")
    check_centred("kspace", array)
    calibration = _grow(sampled) if sampled[middle] else ((middle[0],) * 2, (middle[1],) * 2)
    outside = sampled.copy()
    outside[tuple(slice(*ends) for ends in calibration)] = False
    if not outside.any():
        return Sampling((1, 1), (0, 0), calibration)
    lines = [np.unique(p) for p in np.nonzero(outside)]
    steps = [int(np.gcd.reduce(np.diff(p))) if p.size > 1 else 0 for p in lines]
    # one line outside the centre stands on lattices of every step
    possible = [[d for d in range(1, n) if step % d == 0] or [1] for step, n in zip(steps, sampled.shape)]
    for ry, rz in sorted(itertools.product(*possible), key=np.prod):
        oy, oz = int(lines[0][0] % ry), int(lines[1][0] % rz)
        if _is_whole(sampled[oy::ry, oz::rz]):
            return Sampling((ry, rz), (oy, oz), calibration)
    raise ValueError(
        f"kspace must be sampled on a lattice along y and z (no shear, nothing random), got gaps in steps of "
        f"{max(1, steps[0])} and {max(1, steps[1])}: reconstruct it elsewhere and give its phase"
    )


def check_centred(name: str, array: np.ndarray) -> None:
    """Check that no axis of coil x y z has its power at its ends, as k-space before an fftshift has.

    Raises:
      ValueError: if one has; the line calls the array by its name.
    """
    power = sum(np.square(np.abs(coil), dtype=np.float64) for coil in array)
    for axis, letter in enumerate("xyz"):
        along = np.sum(power, axis=tuple({0, 1, 2} - {axis}))
        inner = np.abs(np.arange(along.size) - along.size // 2) < along.size / 4
        means = [along[part & (along > 0)].mean() if (part & (along > 0)).any() else 0 for part in (inner, ~inner)]
        if 2 * means[0] < means[1]:
            raise ValueError(
                f"{name} must have k = 0 at n // 2, got more power at the ends of {letter} than there: shift it with "
                "fftshift"
            )


def _is_whole(lattice: np.ndarray) -> bool:
    """Say whether lines along either axis have no gap between their ends, and all hang together."""
    gaps = (_spanned(lattice, 0) | _spanned(lattice, 1)) & ~lattice
    return not gaps.any() and scipy.ndimage.label(lattice)[1] == 1


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
