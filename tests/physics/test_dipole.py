"""Laws of the dipole: what must hold for every grid and every B0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.physics import dipole
from qsmjax.physics.dipole import dipole_convolve, forward_field
from qsmjax.physics.geometry import geometry

# one compilation a shape: voxel size and direction are traced
dipole_kernel = jax.jit(dipole.dipole_kernel, static_argnums=0)
dipole_field = jax.jit(forward_field, static_argnames="padding")

SHAPES = [(16, 16, 16), (15, 16, 18), (17, 13, 11)]
GRIDS = [(1.0, 1.0, 1.0), (0.6, 1.0, 2.5)]
B0_DIRS = [(0.0, 0.0, 1.0), (0.3, -0.2, 0.9)]

every_grid = pytest.mark.parametrize(
    ("shape", "voxel_size", "b0_dir"), [(s, v, b) for s in SHAPES for v in GRIDS for b in B0_DIRS]
)


@every_grid
def test_kernel_is_bounded_and_has_no_mean(shape, voxel_size, b0_dir):
    kernel = dipole_kernel(shape, voxel_size, b0_dir)
    assert kernel[0, 0, 0] == 0
    assert kernel.min() >= -2 / 3 - 1e-6 and kernel.max() <= 1 / 3 + 1e-6


@every_grid
def test_half_spectrum_convolves_like_the_full_one_in_float64(shape, voxel_size, b0_dir):
    chi = np.random.default_rng(0).normal(size=shape)
    k = np.meshgrid(*[np.fft.fftfreq(n, d) for n, d in zip(shape, voxel_size)], indexing="ij")
    b = np.asarray(b0_dir) / np.linalg.norm(b0_dir)
    squared = sum(a**2 for a in k)
    full = np.where(squared > 0, 1 / 3 - sum(a * c for a, c in zip(k, b)) ** 2 / np.where(squared > 0, squared, 1), 0)
    # the real part of the full convolution is the convolution with the kernel's even part
    expected = np.fft.ifftn(full * np.fft.fftn(chi)).real
    field = dipole_convolve(chi, dipole_kernel(shape, voxel_size, b0_dir))
    np.testing.assert_allclose(field, expected, atol=2e-6)


@every_grid
def test_convolution_is_its_own_adjoint(shape, voxel_size, b0_dir):
    x, y = (jax.random.normal(jax.random.key(i), shape) for i in (0, 1))
    kernel = dipole_kernel(shape, voxel_size, b0_dir)
    left, right = jnp.vdot(dipole_convolve(x, kernel), y), jnp.vdot(x, dipole_convolve(y, kernel))
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-3)


def test_one_axis_of_the_voxel_is_not_another():
    """Swapped in-plane voxel sizes are a known slip, exact only for square voxels."""
    chi = jax.random.normal(jax.random.key(3), (12, 14, 10))
    field = dipole_field(chi, geometry(chi.shape, (0.5, 1.5, 1.0), (0.2, 0.4, 0.9)), padding=0)
    turned = dipole_field(chi.transpose(1, 0, 2), geometry((14, 12, 10), (1.5, 0.5, 1.0), (0.4, 0.2, 0.9)), padding=0)
    np.testing.assert_allclose(turned.transpose(1, 0, 2), field, atol=2e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_flip_symmetric_kernel_of_a_flipped_grid_is_the_flipped_kernel(axis):
    shape, voxel_size, b0_dir = SHAPES[0], GRIDS[1], np.array(B0_DIRS[1])
    chi = np.asarray(jax.random.normal(jax.random.key(4), shape))
    kernel_of = lambda b: dipole.dipole_kernel(shape, voxel_size, b, flip_symmetric=True)
    flipped_b0 = np.where(np.arange(3) == axis, -b0_dir, b0_dir)
    field = dipole_convolve(chi, kernel_of(b0_dir))
    flipped = dipole_convolve(np.flip(chi, axis), kernel_of(flipped_b0))
    np.testing.assert_allclose(np.flip(flipped, axis), field, atol=2e-6)


def coordinates(n, voxel_size):
    return np.meshgrid(*[(np.arange(n) - n / 2) * d for d in voxel_size], indexing="ij")


def inside_fraction(distance, radius):
    """Give the edge a width of one voxel: a hard edge alone costs some per cent."""
    return np.clip(radius - distance + 0.5, 0, 1)


@pytest.mark.parametrize("b0_dir", B0_DIRS)
def test_sphere_makes_the_analytic_field(b0_dir):
    """Outside a sphere of radius a: field = chi/3 (a/r)³ (3 cos² θ - 1).

    The edge is smooth, which leaves the outer field as it is: a hard one reaches Nyquist, where the kernel of an
    oblique B0 jumps from face to face and rings by some per cent.
    """
    n, radius = 64, 6.0
    points = coordinates(n, (1, 1, 1))
    b = np.asarray(b0_dir) / np.linalg.norm(b0_dir)
    r = np.sqrt(sum(p**2 for p in points))
    chi = 1 / (1 + np.exp((r - radius) / 0.6))
    field = dipole_field(chi, geometry(chi.shape, (1, 1, 1), b0_dir), padding=1)
    outside = (r > 1.7 * radius) & (r < 3 * radius)
    cosine = sum(p * c for p, c in zip(points, b))[outside] / r[outside]
    moment = chi.sum() / (4 / 3 * np.pi)
    analytic = moment / 3 / r[outside] ** 3 * (3 * cosine**2 - 1)
    assert np.linalg.norm(field[outside] - analytic) / np.linalg.norm(analytic) < 0.01


@pytest.mark.parametrize("b0_dir", [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.6, 0.0, 0.8)])
def test_cylinder_makes_the_analytic_field(b0_dir):
    """A long cylinder at the angle θ to B0: inside chi/6 (3 cos² θ - 1), outside chi/2 sin² θ (a/r)² cos 2φ."""
    n, radius = 96, 8.0
    # the grid is periodic along the cylinder, which makes it endless
    x, y, _ = coordinates(n, (1, 1, 1))
    x, y = x[:, :, :8], y[:, :, :8]
    r = np.sqrt(x**2 + y**2)
    chi = inside_fraction(r, radius)
    field = dipole_field(chi, geometry(chi.shape, (1, 1, 1), b0_dir), padding=0)
    cosine, sine = b0_dir[2], np.hypot(b0_dir[0], b0_dir[1])
    inside = r < radius - 2
    # D(0) = 0 takes the mean off: of a cylinder along B0 it is chi's part of the grid, otherwise the images' share
    expected = (3 * cosine**2 - 1) / 6 - chi.mean() * (1 / 3 if cosine == 1 else -(sine**2) / 6)
    np.testing.assert_allclose(field[inside].mean(), expected, atol=0.01)
    ring = (r > 1.5 * radius) & (r < 2.5 * radius)
    turn = np.arctan2(b0_dir[1], b0_dir[0])
    analytic = sine**2 / 2 * (radius / r[ring]) ** 2 * np.cos(2 * (np.arctan2(y[ring], x[ring]) - turn))
    spread = field[ring] - field[ring].mean() - analytic
    assert np.sqrt(np.mean(spread**2)) < 0.005


def test_padding_keeps_the_images_away():
    chi = jnp.zeros((16, 16, 16)).at[6:10, 6:10, 6:10].set(1.0)
    on = geometry(chi.shape)
    free = dipole_field(chi, on, padding=3.0)
    error = lambda padding: float(jnp.abs(dipole_field(chi, on, padding=padding) - free).max())
    assert error(0.5) < 0.5 * error(0.0)
    assert error(1.0) < error(0.5)


def test_gradient_with_respect_to_the_direction_is_finite():
    loss = lambda b: jnp.sum(dipole_kernel((8, 9, 10), (1.0, 1.0, 1.0), b) ** 2)
    assert jnp.all(jnp.isfinite(jax.jit(jax.grad(loss))(jnp.asarray([0.1, 0.2, 1.0]))))


def test_vmap_over_directions_is_the_loop():
    directions = jnp.asarray(B0_DIRS)
    together = jax.vmap(lambda b: dipole_kernel((8, 9, 10), (1.0, 1.0, 2.0), b))(directions)
    for kernel, b in zip(together, directions):
        np.testing.assert_allclose(kernel, dipole_kernel((8, 9, 10), (1.0, 1.0, 2.0), b), atol=1e-6)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="kernel.shape must be"):
        dipole_convolve(jnp.zeros((8, 8, 8)), dipole_kernel((8, 8, 10), (1, 1, 1), (0, 0, 1)))
    with pytest.raises(ValueError, match="chi.shape must end in"):
        forward_field(jnp.zeros((8, 8, 8)), geometry((8, 8, 9)))
    with pytest.raises(ValueError, match="padding must not be negative"):
        forward_field(jnp.zeros((8, 8, 8)), geometry((8, 8, 8)), padding=-1)
