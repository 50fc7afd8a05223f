"""The standard deviation that a correction predicts, brought to what its errors are on scans that it has not seen."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.typing import ArrayLike

from qsmjax.inversion.frame import MARGIN
from qsmjax.models.correction import UNCALIBRATED, Correction
from qsmjax.models.rehearsal import BELIEVED, EDGE, LESION, ONE_DEVIATION, middle, rehearsal, slope
from qsmjax.numerics.box import frame_shape
from qsmjax.numerics.kspace import crop_to, pad_to
from qsmjax.training.scans import Example, rounded
from qsmjax.training.sight import Framed, Seen, correct_seen, framed, see, see_next

SPOTS = 3000
"""Voxels of each scan that the deviation is calibrated on."""
FEWEST = 6
"""Scans that tell what a rehearsal is worth, at least."""
WITHIN = ((1.0, ONE_DEVIATION), (1.96, 0.95))
"""Part of the voxels whose error must lie within so many standard deviations."""


def calibrate(network: Correction, params: Any, scans: Sequence[Seen], seed: int) -> list[float]:
    """Fit the predicted deviation, over whole scans, to what 68 % and 95 % of the errors stay below.

    A regression to those quantiles of the errors' logarithm, which is linear in the predicted spread: a few outliers do
    not move it. What a scan tells as a whole, its noise, misfit and voxel size, does not foretell its own level better;
    a rehearsal does (`calibrate_level`).

    References:
      Koenker & Bassett, Econometrica 46:33 (1978), doi:10.2307/1913643 (quantile regression).
    """
    rng, rows, wanted = np.random.default_rng(seed), [], []
    for seen in scans:
        maps, spread = correct_seen(seen, network, params)
        error, spread = _errors(maps.sharp, seen), spread[seen.mask]
        spots = rng.choice(error.size, SPOTS)
        rows.append(np.stack([np.ones(SPOTS), spread[spots]], 1))
        wanted.append(error[spots])
    return regress(rows, wanted, UNCALIBRATED)


def calibrate_level(
    network: Correction, stages: Sequence[Any], scans: Sequence[Example], calibration: Sequence[float], seed: int
) -> list[float] | None:
    """Fit, over whole scans, what a rehearsal tells of a scan's own level: what `models.rehearsal.rehearsed` takes.

    Each scan is inverted, and then the field that the map found would have, with noise as that scan's. How far the
    second map is off the first foretells how far the first is off the truth; and within a scan the deviation varies by
    less than from scan to scan.

    Args:
      network: the correction.
      stages: its parameters, of each stage.
      scans: that were not trained on.
      calibration: from `calibrate`.
      seed: of the voxels that are looked at.

    Returns:
      Three factors, and `models.rehearsal.EDGE`; None if there are too few scans.
    """
    if len(scans) < FEWEST:
        return None
    rng, rows, wanted = np.random.default_rng(seed), [], []
    constant, factor = calibration
    for scan in scans:
        known = framed(scan)
        seen, chi, spread = invert(network, stages, known)
        seen_again, found, spread_again = invert(network, stages, rehearse(known, chi))
        off = _errors(found, seen_again) - constant - factor * spread_again[seen_again.mask]
        steep = np.asarray(slope(jnp.asarray(chi), jnp.asarray(seen.mask)))[seen.mask]
        error, std = beside_edges(_errors(chi, seen), steep), constant + factor * spread[seen.mask]
        told = np.clip(np.quantile(off, ONE_DEVIATION), *np.log(BELIEVED))
        spots, level = rng.choice(error.size, SPOTS), std.mean()
        excess = std[spots] - level
        rows.append(np.stack([np.ones(SPOTS), np.full(SPOTS, told), np.minimum(excess, LESION)], 1))
        wanted.append(error[spots] - level - np.maximum(excess - LESION, 0))
    return [*regress(rows, wanted, (0.0, 0.0, 1.0)), EDGE]


def beside_edges(error: np.ndarray, steep: np.ndarray) -> np.ndarray:
    """Return by what deviation beside that of edges errors are held: |error| < hypot(s, EDGE slope), the least s.

    Args:
      error: logarithms of the errors [log ppm].
      steep: the map's slope [ppm per voxel].
    """
    return 0.5 * np.log(np.maximum(np.exp(2 * error) - (EDGE * steep) ** 2, 1e-14))


def invert(network: Correction, stages: Sequence[Any], known: Framed) -> tuple[Seen, np.ndarray, np.ndarray]:
    """Invert a scan: what was seen of it last, the map [ppm] and its spread [log ppm], in the box of its mask."""
    seen = see(known)
    for params in stages[:-1]:
        seen = see_next(known, seen, network, params)
    maps, spread = correct_seen(seen, network, stages[-1])
    return seen, np.asarray(maps.sharp), spread


def rehearse(known: Framed, chi: np.ndarray) -> Framed:
    """Return the middle of a scan, its truth a map in the box of the mask: what `models.rehearsal` makes of it."""
    x, y, z = size = middle(jnp.asarray(known.mask), known.scan.geometry.voxel_size)
    a, b, c = (rounded(n) for n in frame_shape((slice(0, x), slice(0, y), slice(0, z)), MARGIN))
    again, truth = _rehearsal(pad_to(chi, known.scan.mask.shape), known.scan, size, (a, b, c))
    return Framed(again, np.asarray(crop_to(truth, size)), np.asarray(crop_to(again.mask, size)))


_rehearsal = jax.jit(rehearsal, static_argnums=(2, 3))


def _errors(chi: ArrayLike, seen: Seen) -> np.ndarray:
    """Return the logarithms of a map's errors in the mask, their mean aside."""
    error = (np.asarray(chi) - seen.chi)[seen.mask]
    return np.log(np.abs(error - error.mean()) + 1e-7)


def regress(rows: list[np.ndarray], wanted: list[np.ndarray], begin: Sequence[float]) -> list[float]:
    """Fit factors of the rows so that the parts in `WITHIN` of what is wanted lie below their sum."""
    known, errors, found = np.concatenate(rows), np.concatenate(wanted), np.asarray(begin)

    def pinball(factors):
        off = errors - known @ factors
        return sum(np.mean(np.maximum(part * (off - np.log(z)), (part - 1) * (off - np.log(z)))) for z, part in WITHIN)

    for _ in range(3):
        found = scipy.optimize.minimize(pinball, found, method="Nelder-Mead").x
    return [float(factor) for factor in found]
