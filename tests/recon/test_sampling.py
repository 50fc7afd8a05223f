"""Lattice and full centre are read off the samples, and what could be read in two ways is refused."""

import numpy as np
import pytest
from coil_phantom import scan

from qsmjax.recon.sampling import find_sampling

SHAPE = (32, 32)
Y, Z = np.indices(SHAPE)
CENTRE = (slice(12, 20), slice(12, 20))
RNG = np.random.default_rng(0)


def sampled_at(pattern):
    return np.broadcast_to(pattern, (2, 4, *pattern.shape)).astype(np.complex64)


PATTERNS = {
    "sheared": (Y % 2 == 0) & ((Z + Y // 2) % 2 == 0),
    "random": RNG.uniform(size=SHAPE) < 0.3,
    "few": RNG.uniform(size=SHAPE) < 0.02,
    "a line across": Y == Z,
}


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("name", PATTERNS)
def test_what_stands_on_no_lattice_is_refused(name, centre):
    pattern = PATTERNS[name].copy()
    pattern[CENTRE] |= centre
    with pytest.raises(ValueError, match=r"on a lattice along y and z .* gaps in steps"):
        find_sampling(sampled_at(pattern), full_centre=centre)


def test_an_ellipse_without_one_end_is_a_lattice():
    pattern = (Y % 2 == 1) & (Z % 3 == 0) & ((Y - 16) ** 2 + (Z - 16) ** 2 < 15**2) & (Z > 5)
    for full_centre in (False, True):
        pattern[CENTRE] |= full_centre
        found = find_sampling(sampled_at(pattern), full_centre=full_centre)
        assert found.acceleration == (2, 3) and found.offset == (1, 0)


@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (1, 1), (0, 2)])
@pytest.mark.parametrize("shape", [(4, 17, 19), (4, 16, 18)])
def test_a_lattice_alone_is_found_whether_or_not_it_has_the_centre(shape, offset):
    _, kspace, _ = scan(shape, (2, 3), offset, (0, 0))
    found = find_sampling(kspace, full_centre=False)
    assert found.acceleration == (2, 3) and found.offset == offset
    (y0, y1), (z0, z1) = found.calibration
    assert y1 - y0 == z1 - z0 == np.any(kspace[:, :, shape[1] // 2, shape[2] // 2] != 0)


def test_the_densest_lattice_is_taken_of_those_that_the_samples_stand_on():
    """Outside the centre stand the first line and the last: steps of 2, 4 and 8 hold both, and the centre is full."""
    pattern = np.zeros((10, 32), bool)
    pattern[::2] = True
    pattern[2:8] = True
    assert find_sampling(sampled_at(pattern)).acceleration == (2, 1)
    # k = 0 stands on the lattice, between two far lines
    pattern = np.zeros((20, 32), bool)
    pattern[2::8] = True
    assert find_sampling(sampled_at(pattern), full_centre=False).acceleration == (8, 1)


def test_what_can_be_read_in_two_ways_is_refused():
    one = np.zeros(SHAPE, bool)
    one[16] = True
    for full_centre in (True, False):
        with pytest.raises(ValueError, match="at least two lines along y, to tell the step between, got 1"):
            find_sampling(sampled_at(one), full_centre=full_centre)
    with pytest.raises(ValueError, match="at least two lines along y, to tell the step between, got 0"):
        find_sampling(np.zeros((2, 4, 6, 6)), full_centre=False)
    with pytest.raises(ValueError, match="sampled at its centre"):
        find_sampling(np.zeros((2, 4, 6, 6)))
    with pytest.raises(ValueError, match="coil x y z"):
        find_sampling(np.zeros((4, 6, 6)))


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("acceleration", [(1, 1), (2, 2)])
def test_kspace_with_its_middle_at_an_end_is_refused(axis, acceleration):
    """Its samples may stand on a lattice all the same, and its images would be right but for their phase."""
    _, kspace, _ = scan((12, 16, 18), acceleration, (0, 1), (0, 0))
    with pytest.raises(ValueError, match=rf"more power at the ends of {' xyz'[axis]} than there: shift it"):
        find_sampling(np.fft.ifftshift(kspace, axes=axis), full_centre=False)
