"""MEDI against the published cost; its trust in outliers, its edges and its spherical filter written out in NumPy.

References:
  Liu et al., NeuroImage 59:2560 (2012), doi:10.1016/j.neuroimage.2011.08.082.
  Liu et al., Magn. Reson. Med. 69:467 (2013), doi:10.1002/mrm.24272.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.cli.main import run_command
from qsmjax.inversion.medi import (
    OUTLIER,
    distrust_outliers,
    edge_weights,
    medi,
    solve_medi,
    without_sphere_mean,
)
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry
from qsmjax.physics.units import radians_per_ppm

SHAPE = (20, 22, 24)
SIZE = np.array([1.0, 1.2, 0.9])
RADIANS = 16.0
NOISE = 0.003
GRID = geometry(SHAPE, SIZE)
RNG = np.random.default_rng(3)

AT = np.stack(np.meshgrid(*[np.arange(n) - n / 2 for n in SHAPE], indexing="ij"))
MASK = np.linalg.norm(AT * SIZE[:, None, None, None], axis=0) < 9
BLOCK = (np.abs(AT - np.reshape((2, 1, -1), (3, 1, 1, 1))) < 3).all(axis=0)
CHI = np.where(BLOCK, 0.15, 0) - np.where((np.abs(AT[:2]) < 1).all(axis=0) & (np.abs(AT[2]) < 7), 0.1, 0)
MAGNITUDE = MASK * (1 - 0.4 * BLOCK) * (1 + 0.02 * RNG.normal(size=SHAPE))
STD = NOISE * np.where(AT[0] < 0, 1.0, 2.0)

K = np.meshgrid(*[np.fft.fftfreq(n, d) for n, d in zip(SHAPE, SIZE)], indexing="ij")
K2 = sum(k**2 for k in K)
DIPOLE = np.where(K2 > 0, 1 / 3 - K[2] ** 2 / np.where(K2 > 0, K2, 1), 0)


def convolve(values, kernel=DIPOLE):
    """Multiply in k-space, in double precision."""
    return np.fft.ifftn(kernel * np.fft.fftn(values)).real


FIELD = convolve(CHI) + STD * RNG.normal(size=SHAPE)


def published_cost(x, lam, weights, edges):
    """lambda |W (exp(i D x) - exp(i f))|² + |M ∇x|₁, x and f in radians: the cost that the toolbox descends."""
    error = weights * (np.exp(1j * convolve(x)) - np.exp(1j * RADIANS * FIELD))
    slopes = [e * (np.roll(x, -1, a) - x) / SIZE[a] for a, e in enumerate(edges)]
    return lam * np.sum(np.abs(error) ** 2) + sum(np.abs(s).sum() for s in slopes)


@functools.cache
def solved(lam):
    """Minimise to the end at a toolbox lambda."""
    options = {"max_iterations": 600, "tolerance": 1e-5}
    made = jax.jit(functools.partial(solve_medi, **options))(
        jnp.float32(FIELD),
        jnp.asarray(MASK),
        GRID,
        noise=jnp.float32(STD),
        magnitude=jnp.float32(MAGNITUDE),
        radians_per_ppm=RADIANS,
        toolbox_lambda=lam,
    )
    return RADIANS * np.asarray(made.chi, np.float64)


def test_its_map_has_the_least_of_the_published_cost():
    """Among maps near it, and among the maps of other lambdas: a factor in the conversion would move the least."""
    weights = np.where(MASK, 1 / STD, 0)
    weights /= weights[MASK].mean()
    edges = [np.asarray(e) for e in edge_weights(jnp.float32(MAGNITUDE), jnp.asarray(MASK), GRID, 90.0)]
    cost = lambda x: published_cost(x, 300.0, weights, edges)
    best, least = solved(300.0), cost(solved(300.0))
    for lam in (150.0, 220.0, 410.0, 600.0):
        assert cost(solved(lam)) > least
    rough = np.where(MASK, RNG.normal(size=SHAPE), 0)
    smooth = np.where(MASK, convolve(rough, np.exp(-40 * K2)), 0)
    for towards in (RADIANS * CHI - best, best, rough, -smooth, np.where(MASK, 1.0, 0)):
        towards = 0.02 * np.linalg.norm(best) * towards / np.linalg.norm(towards)
        assert cost(best + towards) > least and cost(best - towards) > least


def test_the_weight_is_the_toolboxs_lambda_in_our_units():
    local = field_map(FIELD, MASK, GRID, noise=STD, magnitude=MAGNITUDE, radians_per_ppm=RADIANS)
    solution = medi(local, toolbox_lambda=300.0)
    np.testing.assert_allclose(solution.weight, 1 / (2 * 300 * RADIANS), rtol=1e-6)
    with pytest.raises(ValueError, match="must not both be given"):
        medi(local, toolbox_lambda=300.0, weight=1e-4)
    with pytest.raises(ValueError, match="needs radians_per_ppm"):
        medi(local.replace(radians_per_ppm=None), toolbox_lambda=300.0)


@pytest.mark.parametrize("percentage", [30.0, 90.0])
def test_so_many_differences_are_free_and_they_are_the_largest(percentage):
    edges = np.stack(edge_weights(jnp.float32(MAGNITUDE), jnp.asarray(MASK), GRID, percentage))
    slopes = np.stack([np.abs(np.roll(MAGNITUDE, -1, a) - MAGNITUDE) / SIZE[a] for a in range(3)])
    assert abs((edges == 0).sum() - percentage / 100 * MASK.sum()) <= 2
    assert slopes[edges == 0].min() > slopes[edges == 1].max() - 1e-6


def test_a_flat_magnitude_has_no_edges_but_the_rim():
    rounded = np.float32(1) + np.float32(1e-7) * np.random.default_rng(0).normal(size=MASK.shape).astype(np.float32)
    edges = edge_weights(jnp.asarray(rounded), jnp.asarray(MASK), GRID)
    for axis, free in enumerate(edges):
        assert np.asarray(free)[MASK & np.roll(MASK, -1, axis)].all()


def test_merit_takes_the_weight_off_outliers_as_published():
    weights = np.where(MASK, 1 + 0.3 * RNG.random(SHAPE), 0)
    error = np.where(MASK, 0.03 * RNG.normal(size=SHAPE), 0)
    outliers = [(10, 11, 12), (6, 9, 14), (12, 14, 8)]
    for place in outliers:
        error[place] = 1.5
    left = weights * (np.exp(1j * error) - 1)
    left = left - left[MASK].mean()
    beyond = np.maximum(np.abs(left) / (OUTLIER * np.std(np.abs(left[MASK]))), 1)
    expected = np.where(MASK, weights / beyond**2, 0)
    expected /= expected[MASK].mean()
    made = np.asarray(distrust_outliers(jnp.float32(weights), jnp.float32(error)))
    np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-5)
    trust = made[MASK] / weights[MASK]
    assert max(made[p] / weights[p] for p in outliers) < 0.5 * np.median(trust)
    assert (trust < 0.99 * np.median(trust)).sum() == len(outliers)


def test_merit_brings_the_map_closer_where_voxels_lie():
    wrong = FIELD.copy()
    wrong[np.nonzero(MASK & (RNG.random(SHAPE) < 0.01))] += 0.09
    local = field_map(wrong, MASK, GRID, noise=NOISE, magnitude=MAGNITUDE, radians_per_ppm=RADIANS)
    plain, trusting = (medi(local, weight=2e-4, merit=merit).chi for merit in (False, True))
    error = lambda chi: np.linalg.norm((np.asarray(chi) - CHI)[MASK])
    assert error(trusting) < 0.8 * error(plain)


def test_the_sphere_is_taken_off_field_and_kernel_alike():
    radius = 3.0
    at = 2 * np.pi * radius * np.sqrt(np.where(K2 > 0, K2, 1))
    ball = np.where(K2 > 0, 3 * (np.sin(at) - at * np.cos(at)) / at**3, 1)
    inside = MASK & (convolve(MASK, ball) > 0.99)
    masked = np.where(MASK, FIELD, 0)
    half = DIPOLE[..., : SHAPE[2] // 2 + 1]
    weights = np.where(MASK, 1.0 + (AT[1] > 0), 0)
    arrays = jnp.float32(masked), jnp.asarray(MASK), GRID, jnp.float32(weights), jnp.float32(half)
    field, trust, kernel = without_sphere_mean(*arrays, radius)
    np.testing.assert_allclose(kernel, half * (1 - ball[..., : half.shape[-1]]), atol=1e-6)
    np.testing.assert_allclose(field, np.where(inside, masked - convolve(masked, ball), 0), atol=1e-6)
    np.testing.assert_allclose(trust, np.where(inside, weights, 0) / weights[inside].mean(), rtol=1e-5)


def test_the_sphere_rids_the_map_of_a_background():
    """A harmonic field is its own mean over every sphere that lies in the mask."""
    background = 0.01 * AT[0] * SIZE[0] + 0.002 * AT[1] * AT[2] * SIZE[1] * SIZE[2]
    maps = {}
    for radius in (None, 3.0):
        for name, field in (("local", FIELD), ("total", FIELD + background)):
            local = field_map(field, MASK, GRID, noise=NOISE, magnitude=MAGNITUDE, radians_per_ppm=RADIANS)
            maps[name, radius] = np.asarray(medi(local, weight=5e-4, smv_radius=radius).chi)
    moved = {r: np.linalg.norm(maps["total", r] - maps["local", r]) / np.linalg.norm(CHI) for r in (None, 3.0)}
    assert moved[3.0] < 0.15 and moved[None] > 1.5


def test_the_consensus_preset_can_be_asked_for(tmp_path):
    affine = np.diag([*SIZE, 1.0])
    for name, data in (("field", np.where(MASK, FIELD, 0)), ("magnitude", MAGNITUDE), ("mask", MASK)):
        save_volume(tmp_path / f"{name}.nii", data, new_volume(data.astype(np.float32), affine))
    preset = ("toolbox_lambda=2000", "edge_percentage=90", "smv_radius=5", "merit=true")
    options = ["--method", "medi", "--b0", "3", "--te", "0.02", *(word for o in preset for word in ("--set", o))]
    files = [
        str(tmp_path / "field.nii"),
        "--magnitude",
        str(tmp_path / "magnitude.nii"),
        "--mask",
        str(tmp_path / "mask.nii"),
    ]
    assert run_command("infer", [*files, *options, "--quiet", "--no-figure"]) == 0
    written = json.loads((tmp_path / "field_Chimap.json").read_text())["Parameters"]
    assert written["toolbox_lambda"] == 2000 and written["smv_radius"] == 5 and written["merit"] is True
    np.testing.assert_allclose(written["weight"], 1 / (2 * 2000 * radians_per_ppm(3.0, 0.02)), rtol=1e-5)
    assert np.isfinite(load_volume(tmp_path / "field_Chimap.nii.gz").data).all()
