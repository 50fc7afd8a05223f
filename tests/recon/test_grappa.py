"""GRAPPA fills what is missing as well as pygrappa does, over one or two accelerated axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coil_phantom import middle, nrmse, scan

from qsmjax.recon.grappa import grappa, grappa_fill, grappa_weights, trim_kernel
from qsmjax.recon.reconstruct import reconstruct
from qsmjax.recon.sampling import find_sampling

SCANS = {
    "2x2": ((8, 28, 26), (2, 2), (1, 0), (14, 14), (3, 4, 4)),
    "2x1, odd": ((8, 29, 21), (2, 1), (1, 0), (15, 21), (3, 4, 3)),
    "one plane": ((1, 40, 36), (2, 2), (0, 1), (18, 18), (5, 4, 4)),
}


@pytest.mark.parametrize("name", SCANS)
def test_the_missing_samples_are_filled(name):
    shape, acceleration, offset, block, kernel = SCANS[name]
    images, undersampled, full = scan(shape, acceleration, offset, block)
    found = find_sampling(undersampled)
    assert found.acceleration == acceleration and found.offset == offset
    filled = np.asarray(grappa(undersampled, kernel_size=kernel))
    measured = undersampled != 0
    np.testing.assert_array_equal(filled[measured], undersampled[measured])
    assert nrmse(filled, images) < 2.5 * nrmse(full, images)
    assert nrmse(filled, images) < 0.5 * nrmse(undersampled, images)


def test_it_is_no_worse_than_pygrappa():
    pygrappa = pytest.importorskip("pygrappa")
    shape, acceleration, offset, block, kernel = SCANS["one plane"]
    images, undersampled, _ = scan(shape, acceleration, offset, block)
    theirs = pygrappa.mdgrappa(np.moveaxis(undersampled[:, 0], 0, -1).copy(), kernel_size=(5, 5))
    theirs = np.moveaxis(theirs, -1, 0)[:, None]
    assert nrmse(grappa(undersampled, kernel_size=kernel), images) < nrmse(theirs, images)


@pytest.mark.parametrize(("acceleration", "reach"), [((2, 2), (3, 5, 5)), ((3, 2), (3, 7, 5))], ids=["2x2", "3x2"])
def test_it_is_no_worse_than_pygrappa_in_a_volume(acceleration, reach):
    """By the same calibration measured apart, and kernels as far-reaching: three lattice places along each axis.

    With a full centre in k-space pygrappa may be the better one beside it (see docs/scanner.md): it has weights of
    their own for the holes there, which use the centre's samples off the lattice.
    """
    pygrappa = pytest.importorskip("pygrappa")
    images, undersampled, full = scan((14, 20, 18), acceleration, (1, 0), (0, 0))
    region = middle(full, (14, 16, 14))
    last = lambda kspace: np.moveaxis(kspace, 0, -1).copy()
    theirs = np.moveaxis(pygrappa.mdgrappa(last(undersampled), calib=last(region), kernel_size=reach), -1, 0)
    ours = grappa(undersampled, calibration=region, kernel_size=(3, 3, 3))
    assert nrmse(ours, images) < nrmse(theirs, images) < 0.2 < nrmse(undersampled, images)


def test_full_kspace_comes_back_and_a_region_measured_apart_is_used():
    shape, acceleration, offset, block, kernel = SCANS["2x2"]
    images, undersampled, full = scan(shape, acceleration, offset, block)
    np.testing.assert_array_equal(grappa(full), jnp.asarray(full, jnp.complex64))
    apart = grappa(undersampled, calibration=full[:, :, 6:22, 5:21], kernel_size=kernel)
    assert nrmse(apart, images) < 2.5 * nrmse(full, images)


def test_filling_is_pure_mapped_over_echoes_and_differentiable():
    shape, acceleration, offset, _, kernel = SCANS["2x2"]
    _, undersampled, full = scan(shape, acceleration, offset, (14, 14))
    weights = jax.jit(lambda c: grappa_weights(c, acceleration, kernel_size=kernel))(full[:, :, 7:21, 6:20])
    fill = lambda k: grappa_fill(k, weights, acceleration, offset, kernel_size=kernel)
    echoes = jnp.stack([jnp.asarray(undersampled), 2j * jnp.asarray(undersampled)])
    both = jax.jit(jax.vmap(fill))(echoes)
    np.testing.assert_allclose(both[1], 2j * both[0], rtol=1e-4, atol=1e-4)
    loss = lambda scale: jnp.sum(jnp.abs(fill(scale * echoes[0])) ** 2)
    np.testing.assert_allclose(jax.grad(loss)(1.0), 2 * loss(1.0), rtol=1e-3)


def test_the_weights_slope_is_that_of_finite_differences():
    shape, acceleration, offset, _, kernel = SCANS["2x2"]
    _, _, full = scan(shape, acceleration, offset, (14, 14))
    rng = np.random.default_rng(0)
    region = full[:, :, 7:21, 6:20]
    along = rng.normal(size=region.shape) + 1j * rng.normal(size=region.shape)
    along = jnp.asarray(0.1 * np.abs(region).max() * along, jnp.complex64)

    @jax.jit
    def loss(t):
        weights = grappa_weights(region + t * along, acceleration, kernel_size=kernel, regularisation=0.1)
        return jnp.sum(jnp.abs(weights) ** 2)

    step = 1e-2
    slope = (loss(step) - loss(-step)) / (2 * step)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(jax.grad(loss)(0.0), slope, rtol=2e-2)


def test_what_cannot_be_calibrated_is_refused():
    shape, acceleration, offset, _, _ = SCANS["2x2"]
    _, undersampled, _ = scan(shape, acceleration, offset, (6, 6))
    with pytest.raises(ValueError, match="calibration must hold"):
        grappa(undersampled)
    with pytest.raises(ValueError, match=r"weights\.shape must be"):
        grappa_fill(undersampled, jnp.zeros((4, 3, 2, 2), jnp.complex64), (2, 2), (0, 0))


@pytest.mark.parametrize(
    "option",
    [
        {"kernel_size": (3, 0, 4)},
        {"map_kernel": (4, 4, -1)},
        {"map_threshold": 2.0},
        {"map_threshold": 0.0},
        {"map_threshold": float("nan")},
        {"regularisation": -1.0},
    ],
)
def test_options_out_of_their_range_are_refused(option):
    """Full k-space and all: an option that is not used is none that may be wrong."""
    with pytest.raises(ValueError, match=f"{next(iter(option))} must"):
        reconstruct(np.ones((1, 2, 8, 8, 8), np.complex64), **option)


@pytest.mark.parametrize("kernel", [(3, 4), (3, 4, 4, 4), (3, 4, 0)])
def test_a_kernel_is_three_counts(kernel):
    assert trim_kernel((3, 4, 4), (2, 8, 8, 1)) == (3, 4, 1)
    with pytest.raises(ValueError, match="kernel_size must be three positive counts"):
        trim_kernel(kernel, (2, 8, 8, 8))
