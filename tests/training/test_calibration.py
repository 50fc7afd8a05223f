"""The deviation that is told, on errors whose scale is known."""

import numpy as np
import pytest

from qsmjax.models.correction import Correction
from qsmjax.models.unrolled import Start
from qsmjax.training import calibration
from qsmjax.training.sight import Seen

SHAPE = (24, 24, 24)


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_errors_of_a_known_scale_lie_within_the_deviation_as_they_should(scale, monkeypatch):
    """e = scale s^(1/2) n for a predicted s: 68 % lie within scale s^(1/2)."""
    rng, scans, made = np.random.default_rng(0), [], []
    for _ in range(4):
        mask = np.linalg.norm(np.indices(SHAPE) - 11.5, axis=0) < 11
        chi = np.where(mask, 0.05 * rng.normal(size=SHAPE), 0)
        spread = np.log(rng.uniform(0.002, 0.05, SHAPE))
        error = scale * np.exp(spread / 2) * rng.normal(size=SHAPE)
        scans.append(Seen(np.zeros((*SHAPE, 1)), chi, mask, np.ones(3), np.asarray([0.0, 0, 1])))
        # a map's mean is not in its field, and so no error
        made.append((Start(chi, chi + error + 0.1), spread))
    given = iter(made)
    monkeypatch.setattr(calibration, "correct_seen", lambda *_: next(given))
    constant, factor = calibration.calibrate(Correction(), {}, scans, seed=0)
    np.testing.assert_allclose([constant, factor], [np.log(scale), 0.5], atol=0.06)
    off = [
        (np.asarray(maps.sharp - seen.chi) - 0.1) / np.exp(constant + factor * s)
        for seen, (maps, s) in zip(scans, made)
    ]
    within = np.concatenate([np.abs(each[seen.mask]) for each, seen in zip(off, scans)])
    assert abs(np.mean(within < 1) - 0.68) < 0.015 and abs(np.mean(within < 1.96) - 0.95) < 0.01
