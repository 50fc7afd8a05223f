"""The deviation that is told, on errors whose scale is known."""

import numpy as np
import pytest

from qsmjax.models import rehearsal
from qsmjax.models.correction import Correction
from qsmjax.models.unrolled import Start
from qsmjax.numerics.kspace import crop_to, pad_to
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.training import calibration, sight
from qsmjax.training.scans import Example
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


def test_the_level_of_a_scan_is_read_off_its_rehearsal(monkeypatch):
    """Errors of exp(0.2) q^0.6 m (s/m)^0.7 for a predicted s of geometric mean m, rehearsed ones of q s."""
    rng, made = np.random.default_rng(0), []
    mask = np.linalg.norm(np.indices(SHAPE) - 11.5, axis=0) < 11
    grid = np.ones(3, np.float32), np.asarray([0.0, 0, 1], np.float32)
    scan = Example(*(np.zeros(SHAPE, np.float32) for _ in range(2)), mask, np.zeros(SHAPE, np.float32), *grid)
    for quantile in np.exp(rng.uniform(-0.5, 0.5, 8)):
        spread, zero = np.log(rng.uniform(0.01, 0.02, SHAPE)), np.zeros(SHAPE)
        # the constant of the calibration is 0.1
        std = np.exp(0.1 + spread)
        level = np.log(std[mask]).mean()
        seen = Seen(np.zeros((*SHAPE, 1)), zero, mask, *grid)
        error = np.exp(0.2 + level + 0.7 * (np.log(std) - level)) * quantile**0.6 * rng.normal(size=SHAPE)
        made += [(seen, error, spread), (seen, quantile * std * rng.normal(size=SHAPE), spread)]
    given = iter(made)
    monkeypatch.setattr(calibration, "invert", lambda *_, **__: next(given))
    monkeypatch.setattr(calibration, "framed", lambda scan: scan)
    monkeypatch.setattr(calibration, "rehearse", lambda scan, _: scan)
    factors = calibration.calibrate_level(Correction(), [{}], [scan] * 8, [0.1, 1.0], seed=0)
    np.testing.assert_allclose(factors, [0.2, 0.6, 0.7, rehearsal.EDGE], atol=0.06)
    assert calibration.calibrate_level(Correction(), [{}], [scan] * 3, [0.1, 1.0], seed=0) is None


def test_what_is_rehearsed_in_training_is_what_an_inversion_rehearses(monkeypatch):
    """The middle of a head of odd sizes: the same field, trust and frame."""
    monkeypatch.setattr(rehearsal, "MOST", 2000)
    shape = (31, 28, 25)
    rng, grid = np.random.default_rng(0), geometry(shape, (1.0, 1.2, 1.5), (0.3, 0.1, 0.95))
    mask = np.linalg.norm((np.indices(shape).T - (15, 14, 12)) / (14, 12, 11), axis=-1).T < 1
    chi = np.where(mask, 0.05 * rng.normal(size=shape), 0).astype(np.float32)
    noise = np.where(mask, rng.uniform(1e-3, 2e-3, shape), 0).astype(np.float32)
    field = np.where(mask, np.asarray(forward_field(chi, grid)), 0).astype(np.float32)
    known = sight.framed(Example(field, chi, mask, noise, np.asarray(grid.voxel_size), np.asarray(grid.b0_dir)))
    made = calibration.rehearse(known, known.chi)
    assert made.mask.size <= 2000 and made.mask.all()
    again, _ = rehearsal.rehearsal(
        pad_to(known.chi, known.scan.mask.shape), known.scan, made.mask.shape, made.scan.mask.shape
    )
    np.testing.assert_allclose(made.scan.field, again.field, atol=1e-6)
    first = [(n - m) // 2 for n, m in zip(known.scan.mask.shape, made.mask.shape)]
    inside = tuple(slice(a, a + m) for a, m in zip(first, made.mask.shape))
    np.testing.assert_array_equal(crop_to(made.scan.trust, made.mask.shape), known.scan.trust[inside])
    np.testing.assert_array_equal(made.chi, pad_to(known.chi, known.scan.mask.shape)[inside])
    assert sight.see(made).features.shape[:3] == made.mask.shape


def test_errors_beside_edges_are_held_by_what_is_left_for_the_tissue():
    """|e| < hypot(s, EDGE slope) where, and only where, the least s that is told is below s."""
    rng = np.random.default_rng(0)
    error, steep, s = np.abs(rng.normal(size=1000)) * 0.01, rng.uniform(0, 0.2, 1000), rng.uniform(0.002, 0.02, 1000)
    least = np.exp(calibration.beside_edges(np.log(error), steep))
    np.testing.assert_array_equal(least < s, error < np.hypot(s, rehearsal.EDGE * steep))
