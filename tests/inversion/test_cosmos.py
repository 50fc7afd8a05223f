"""Laws of COSMOS: exact where everything is known, and better than one orientation where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.inversion import cosmos
from qsmjax.physics.dipole import dipole_convolve, dipole_kernel, forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry

SHAPE = (24, 20, 22)
DIRECTIONS = [(0, 0, 1), (0.5, 0, 0.87), (0, 0.5, 0.87), (-0.35, -0.35, 0.87)]


def chi_and_mask():
    at = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    mask = np.linalg.norm(at, axis=0) < 8.5
    chi = np.where(mask & (np.abs(at[0]) < 3), 0.2, 0) - np.where(np.linalg.norm(at, axis=0) < 2, 0.5, 0)
    return chi.astype(np.float32), mask


def condition_over_the_sphere() -> float:
    """√(max / min) of Σ D² over all directions of k, which the grid's frequencies sample."""
    z = np.linspace(-1, 1, 401)[:, None]
    turn = np.linspace(0, 2 * np.pi, 801)
    k = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z + 0 * turn])
    b0_dirs = np.asarray(DIRECTIONS) / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
    total = sum((1 / 3 - np.tensordot(b, k, 1) ** 2) ** 2 for b in b0_dirs)
    return float(np.sqrt(total.max() / total.min()))


def test_is_exact_where_the_fields_are_known_everywhere():
    chi, _ = chi_and_mask()
    chi -= chi.mean()
    maps = []
    for direction in DIRECTIONS:
        grid = geometry(SHAPE, (1, 1.2, 0.9), direction)
        kernel = dipole_kernel(SHAPE, (1, 1.2, 0.9), direction, flip_symmetric=True)
        maps.append(field_map(dipole_convolve(chi, kernel), None, grid))
    solution = cosmos(maps)
    assert np.linalg.norm(solution.chi - chi) < 1e-4 * np.linalg.norm(chi)
    np.testing.assert_allclose(solution.condition, condition_over_the_sphere(), rtol=0.03)


def test_brings_back_a_map_from_masked_fields_and_weighs_them_by_noise():
    chi, mask = chi_and_mask()
    maps = []
    for i, direction in enumerate(DIRECTIONS):
        grid = geometry(SHAPE, (1, 1, 1), direction)
        noise = 0.1 if i == 3 else 1e-3
        field = forward_field(chi, grid, padding=1.0) + noise * np.random.default_rng(i).normal(size=SHAPE)
        maps.append(field_map(field, mask, grid, noise=noise))
    solution = cosmos(maps)
    error = np.linalg.norm((solution.chi - chi)[mask]) / np.linalg.norm(chi[mask])
    assert error < 0.12 and bool(solution.converged)
    assert not np.asarray(solution.chi)[~mask].any()


@pytest.mark.parametrize("everywhere", [False, True])
def test_known_masks_give_one_method_and_one_frame_within_jit_and_without(everywhere):
    chi, mask = chi_and_mask()
    known = None if everywhere else mask
    maps = [
        field_map(forward_field(chi, grid), known, grid) for grid in (geometry(SHAPE, (1, 1, 1), d) for d in DIRECTIONS)
    ]
    solve = lambda fields, masks: cosmos([m.replace(field=f, mask=k) for m, f, k in zip(maps, fields, masks)]).chi
    fields, masks = [m.field for m in maps], [m.mask for m in maps]
    once = solve(fields, masks)
    np.testing.assert_allclose(jax.jit(lambda fields: solve(fields, masks))(fields), once, atol=1e-5)
    # of traced masks neither box nor closed form is known: the whole grid is the frame
    assert np.linalg.norm(jax.jit(solve)(fields, masks) - once) < (0.5 if everywhere else 0.1) * np.linalg.norm(once)


def test_one_direction_is_refused():
    same = field_map(jnp.ones(SHAPE), None, geometry(SHAPE))
    with pytest.raises(ValueError, match="at least two orientations, got 1"):
        cosmos([same])
    with pytest.raises(ValueError, match="at least two directions of B0"):
        cosmos([same, same])
    with pytest.raises(ValueError, match=r"share one grid, got voxels of .*2\.0"):
        cosmos([same, field_map(jnp.ones(SHAPE), None, geometry(SHAPE, (1, 1, 2), (0, 1, 0)))])
