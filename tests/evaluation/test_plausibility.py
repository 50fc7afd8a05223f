"""Each check is quiet on what is usual, and speaks on the mistake that it is for."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from qsmjax.evaluation import plausibility
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry

SHAPE = (40, 44, 36)
GRID = geometry(SHAPE, (3, 3, 4), (0, 0.3, 0.95))


@pytest.fixture(scope="module")
def head():
    """A ball with blobs of all sizes, most of them weak and negative, few strong and positive."""
    rng = np.random.default_rng(3)
    x = np.meshgrid(*[np.linspace(-1.1, 1.1, n) for n in SHAPE], indexing="ij")
    mask = sum(a**2 for a in x) < 1
    chi = sum(0.03 * s * _unit(gaussian_filter(rng.normal(size=SHAPE), s)) for s in (1, 2, 4)) / 3
    chi[np.abs(gaussian_filter(rng.normal(size=SHAPE), 1)) > 0.27] += 0.3
    chi = np.where(mask, chi, 0)
    return mask, chi, np.where(mask, np.asarray(forward_field(chi, GRID)), 0)


def _unit(volume):
    return volume / volume.std()


def outside_field():
    """The field of sources beside the head, as far as its mask's radius."""
    sources = np.zeros(SHAPE)
    sources[0:2, 20:24, 16:20] = 600
    sources[18:22, 42:44, 4:8] = -600
    return np.asarray(forward_field(sources, GRID))


def test_the_true_map_leaves_nothing_and_half_of_it_a_quarter_of_the_power(head):
    mask, chi, field = head
    local = field_map(field, mask, GRID, noise=1e-3)
    right, half = (plausibility.field_residual(local, part * chi) for part in (1, 0.5))
    assert right.explained > 0.9999 and right.rms < 1e-6 and not right.volume[~mask].any()
    assert half.explained == pytest.approx(0.75, abs=1e-3)
    assert half.rms == pytest.approx(half.field_rms / 2, rel=1e-3) and half.over_noise == pytest.approx(half.rms / 1e-3)


def test_border_contact_is_the_part_of_the_rim_that_lies_on_a_face(head):
    mask = head[0]
    assert plausibility.border_contact(mask) == 0
    assert plausibility.border_contact(mask[:, :, 12:]) > plausibility.BORDER_LIMIT
    assert plausibility.border_contact(np.ones((4, 4, 4))) == 1
    assert plausibility.border_contact(np.zeros((4, 4, 4))) == 0


def test_left_background_shows_at_the_rim_and_a_shim_as_harmonic(head):
    mask, _, field = head
    spoilt = field + np.where(mask, outside_field(), 0)
    assert plausibility.rim_excess(field, mask, GRID) < plausibility.RIM_LIMIT
    assert plausibility.rim_excess(spoilt, mask, GRID) > plausibility.RIM_LIMIT
    assert plausibility.harmonic_part(field, mask, GRID) < plausibility.HARMONIC_LIMIT
    shimmed = field + 0.003 * np.where(mask, np.arange(SHAPE[0])[:, None, None] - 20, 0)
    assert plausibility.harmonic_part(shimmed, mask, GRID) > plausibility.HARMONIC_LIMIT


def test_a_solid_harmonic_is_harmonic_whatever_the_voxel_and_noise_is_not(head):
    mask = head[0]
    x, y, z = np.meshgrid(*[np.arange(n) * d for n, d in zip(SHAPE, (3, 3, 4))], indexing="ij")
    harmonic = 1e-4 * (x**2 - y**2) + 1e-6 * (z**3 - 3 * z * x**2) + 0.01 * y
    assert plausibility.harmonic_part(harmonic, mask, GRID) > 0.9999
    bowl = sum((a - a.mean()) ** 2 for a in (x, y, z))
    assert plausibility.harmonic_part(bowl, mask, GRID) < 0.3
    assert plausibility.harmonic_part(np.random.default_rng(0).normal(size=SHAPE), mask, GRID) < 0.01


def test_a_high_pass_filter_takes_the_low_frequencies(head):
    mask, _, field = head
    filtered = field - gaussian_filter(field, 1.5) / np.maximum(gaussian_filter(mask * 1.0, 1.5), 0.1)
    assert plausibility.low_frequencies(field, mask, GRID) > plausibility.LOW_LIMIT
    assert plausibility.low_frequencies(filtered, mask, GRID) < plausibility.LOW_LIMIT


def test_the_tail_turns_with_the_sign(head):
    mask, chi, _ = head
    balance = plausibility.tail_balance(chi, mask, GRID)
    assert 0.1 < balance < 1 and plausibility.tail_balance(-chi, mask, GRID) == pytest.approx(-balance)
    # a reference is subtracted from a map: no part of its tails
    assert plausibility.tail_balance(chi + 0.5, mask, GRID) == pytest.approx(balance)
    flat, inner = geometry(SHAPE, (0.5, 0.5, 3)), np.where(np.indices(SHAPE)[2] == 3, 1.0, 0.0) * np.ones(SHAPE)
    inner[20, 20, 3] = 2.0
    assert plausibility.tail_balance(inner, np.ones(SHAPE), flat) > 0.9, "two voxels of 3 mm are deeper than 5 mm"
