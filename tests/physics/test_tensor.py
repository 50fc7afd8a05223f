"""The field of a tensor: the dipole's where it is isotropic, and a cylinder's of radial fibres by its own formula."""

import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.physics.tensor import tensor_field

B = np.asarray([0.3, -0.4, 0.866])


@pytest.mark.parametrize("padding", [0, 0.5])
@pytest.mark.parametrize("shape", [(12, 15, 18), (11, 16, 9), (16, 12, 10), (9, 11, 15)])
def test_an_isotropic_tensor_makes_the_dipoles_field(shape, padding):
    """Of white noise too, whose Nyquist planes hold as much as any."""
    chi = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    grid = geometry(shape, (1.0, 1.5, 0.8), B)
    along = chi * np.asarray(grid.b0_dir)[:, None, None, None]
    made, expected = (f(volume, grid, padding=padding) for f, volume in ((tensor_field, along), (forward_field, chi)))
    assert np.linalg.norm(made - expected) < 1e-5 * np.linalg.norm(expected)


def test_a_sphere_magnetised_across_b0_has_a_field_of_its_own():
    """Outside a sphere of magnetisation m the field is that of a point dipole: (3 (m·r)(r·b) - m·b r²) / r⁵ R³/3."""
    n, radius = 64, 10.0
    index = np.indices((n, n, n)) - (n - 1) / 2
    r = np.sqrt((index**2).sum(0))
    inside = np.clip(0.5 + radius - r, 0, 1)
    m = np.asarray([1.0, 0.0, 0.0])
    grid = geometry((n, n, n), (1, 1, 1), (0, 0, 1))
    made = np.asarray(tensor_field(inside * m[:, None, None, None], grid, padding=1.0))
    shell = (r > 14) & (r < 24)
    expected = radius**3 / 3 * (3 * index[0] * index[2]) / np.maximum(r, 1) ** 5
    error = np.linalg.norm((made - expected)[shell]) / np.linalg.norm(expected[shell])
    assert error < 0.02


def test_refuses_what_is_no_vector():
    with pytest.raises(ValueError, match="magnetised must have the shape"):
        tensor_field(jnp.zeros((2, 4, 4, 4)), geometry((4, 4, 4)))
