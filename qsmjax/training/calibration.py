"""The standard deviation that a correction predicts, brought to what its errors are on scans that it has not seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.optimize

from qsmjax.models.correction import UNCALIBRATED, Correction
from qsmjax.training.sight import Seen, correct_seen

SPOTS = 3000
"""Voxels of each scan that the deviation is calibrated on."""
WITHIN = ((1.0, 0.6827), (1.96, 0.95))
"""Part of the voxels whose error must lie within so many standard deviations."""


def calibrate(network: Correction, params: Any, scans: Sequence[Seen], seed: int) -> list[float]:
    """Fit the predicted deviation, over whole scans, to what 68 % and 95 % of the errors stay below.

    A regression to those quantiles of the errors' logarithm, which is linear in the predicted spread: a few outliers do
    not move it. What a scan tells as a whole, its noise, misfit and voxel size, does not foretell its own level better.

    References:
      Koenker & Bassett, Econometrica 46:33 (1978), doi:10.2307/1913643 (quantile regression).
    """
    rng, spreads, errors = np.random.default_rng(seed), [], []
    for seen in scans:
        maps, spread = correct_seen(seen, network, params)
        error = (np.asarray(maps.sharp) - seen.chi)[seen.mask]
        spots = rng.choice(error.size, SPOTS)
        spreads.append(spread[seen.mask][spots])
        errors.append(np.log(np.abs(error - error.mean())[spots] + 1e-7))
    known, wanted = np.concatenate(spreads), np.concatenate(errors)

    def pinball(calibration):
        off = wanted - calibration[0] - calibration[1] * known
        return sum(np.mean(np.maximum(part * (off - np.log(z)), (part - 1) * (off - np.log(z)))) for z, part in WITHIN)

    found = np.asarray(UNCALIBRATED)
    for _ in range(3):
        found = scipy.optimize.minimize(pinball, found, method="Nelder-Mead").x
    return [float(factor) for factor in found]
