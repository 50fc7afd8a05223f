"""Laws of every inversion: it brings back a map from its own field, on any grid, and says what it took."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.inversion import METHODS
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry

SHAPE = (24, 24, 24)
TOLERANCE = {
    "tkd": 0.75,
    "tsvd": 0.85,
    "tikhonov": 0.8,
    "tv": 0.35,
    "nltv": 0.35,
    "l1": 0.4,
    "hd": 0.4,
    "medi": 0.35,
    "wh": 0.6,
    "tgv": 0.4,
    "nltgv": 0.4,
    "ndi": 0.8,
    "rts": 0.8,
    "ilsqr": 0.5,
    "tfi": 0.05,
    "tgv_onestep": 0.07,
}
"""NRMSE with noise of 0.002 ppm, a little above what each reaches."""

every_method = pytest.mark.parametrize("name", METHODS)


def phantom(shape=SHAPE, b0_dir=(0, 0, 1), noise: float = 0.002) -> tuple[FieldMap, np.ndarray]:
    """Make the field of two cubes and a rod in a ball of water."""
    at = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"))
    mask = np.linalg.norm(at, axis=0) < 10
    chi = np.zeros(shape, np.float32)
    chi[(np.abs(at - np.reshape((3, 2, -2), (3, 1, 1, 1))) < 2.6).all(axis=0)] = 0.2
    chi[(np.abs(at - np.reshape((-4, -2, 3), (3, 1, 1, 1))) < 2.1).all(axis=0)] = -0.15
    chi[(np.abs(at[:2] - np.reshape((-3, 4), (2, 1, 1, 1))) < 1).all(axis=0) & (np.abs(at[2]) < 5)] = 0.3
    grid = geometry(shape, (1, 1, 1), b0_dir)
    field = forward_field(chi, grid, padding=1.0) + noise * np.random.default_rng(0).normal(size=shape)
    return field_map(field, mask, grid, noise=max(noise, 1e-4), magnitude=mask * (1 + chi)), chi


def nrmse(chi, truth, mask) -> float:
    """Relative error of what lies in the mask, both without their means."""
    a, b = (np.asarray(v)[np.asarray(mask)] for v in (chi, truth))
    a, b = a - a.mean(), b - b.mean()
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@every_method
def test_brings_back_the_map_that_made_the_field(name):
    local, truth = phantom()
    solution = METHODS[name](local)
    assert nrmse(solution.chi, truth, local.mask) < TOLERANCE[name]
    assert solution.chi.shape == SHAPE and solution.chi.dtype == jnp.float32
    assert not np.asarray(solution.chi)[~np.asarray(local.mask)].any()
    assert bool(solution.converged) and jnp.isfinite(solution.residual)


@pytest.mark.parametrize("name", ["tv", "nltv", "l1", "hd", "medi", "wh", "tgv", "nltgv", "ndi"])
def test_a_constant_in_the_field_is_no_sources(name):
    """The scanner's frequency is off by some; a map that had to make 30 ppb of it would be off many times its size."""
    local, truth = phantom()
    error = lambda constant: nrmse(
        METHODS[name](local.replace(field=local.field + constant * local.mask)).chi, truth, local.mask
    )
    # where there is none, it is known
    assert error(0.03) < TOLERANCE[name] and abs(error(0.06) - error(0.03)) < 0.02


@every_method
def test_does_not_depend_on_where_the_head_lies_in_its_grid(name):
    local, _ = phantom()
    widths = ((3, 0), (1, 6), (0, 5))
    wide = geometry(tuple(n + a + b for n, (a, b) in zip(SHAPE, widths)))
    moved = field_map(jnp.pad(local.field, widths), jnp.pad(local.mask, widths), wide, noise=0.002)
    moved = moved.replace(magnitude=jnp.pad(local.magnitude, widths))
    inner = tuple(slice(a, a + n) for n, (a, _) in zip(SHAPE, widths))
    np.testing.assert_allclose(METHODS[name](moved).chi[inner], METHODS[name](local).chi, atol=1e-6)


@every_method
def test_says_in_its_signature_and_docstring_what_it_is(name):
    method = METHODS[name]
    first, *options = inspect.signature(method).parameters.values()
    assert method.__name__ == name and first.name == "field_map"
    assert all(option.kind is option.KEYWORD_ONLY for option in options)
    assert all(option.default is not option.empty for option in options)
    document = inspect.getdoc(method) or ""
    assert document.splitlines()[0].endswith(".") and "doi:" in document
    assert all(f"  {option.name}:" in document for option in options), "every option is documented"


@every_method
def test_an_option_out_of_range_is_refused(name):
    local, _ = phantom()
    options = ("threshold", "weight", "step_size")
    option = next(k for k in inspect.signature(METHODS[name]).parameters if k in options)
    with pytest.raises(ValueError, match=f"{option} must be positive"):
        METHODS[name](local, **{option: -1.0})


def test_taking_streaks_off_beats_holding_the_dipole_above_a_threshold():
    local, truth = phantom()
    streaked, clean = (nrmse(METHODS[name](local).chi, truth, local.mask) for name in ("tkd", "ilsqr"))
    assert clean < 0.8 * streaked


def test_an_empty_mask_is_refused():
    local, _ = phantom()
    with pytest.raises(ValueError, match="mask must have at least one voxel"):
        METHODS["tkd"](local.replace(mask=jnp.zeros(SHAPE, bool)))


def test_a_field_that_is_not_finite_is_an_error_that_names_the_iteration():
    local, _ = phantom()
    with pytest.raises(ValueError, match="must be finite inside the mask"):
        METHODS["tv"](local.replace(field=local.field.at[12, 12, 12].set(jnp.nan)))
    # finite, but its square is not
    with pytest.raises(FloatingPointError, match="at iteration 1"):
        METHODS["tv"](local.replace(field=1e30 * local.field))


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("name", ["tkd", "tv"])
def test_a_known_mask_has_one_frame_within_jit_and_without(name, everywhere):
    local, _ = phantom()
    mask = None if everywhere else np.asarray(local.mask)
    invert = lambda field: METHODS[name](field_map(field, mask, local.geometry)).chi
    once = invert(local.field)
    np.testing.assert_allclose(jax.jit(invert)(local.field), once, atol=1e-4 * np.abs(once).max())


def test_tkd_runs_inside_jit_and_vmap():
    local, _ = phantom()
    both = jnp.stack([local.field, 2 * local.field])
    swept = jax.jit(jax.vmap(lambda field: METHODS["tkd"](local.replace(field=field)).chi))(both)
    np.testing.assert_allclose(2 * swept[0], swept[1], atol=1e-6)
    held = jax.jit(lambda threshold: METHODS["tkd"](local, threshold=threshold).chi)(0.15)
    np.testing.assert_allclose(held, METHODS["tkd"](local, threshold=0.15).chi, atol=1e-6)


@pytest.mark.parametrize("name", ["nltv", "medi"])
def test_a_field_of_many_turns_is_followed_from_zero(name):
    """A calcification at a late echo of 7 T: the complex signal alone would leave it where it began."""
    at = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    mask, chi = np.linalg.norm(at, axis=0) < 10, np.where(np.linalg.norm(at, axis=0) < 3, -2.0, 0.0)
    grid = geometry(SHAPE, (1, 1, 1), (0, 0, 1))
    field = forward_field(chi, grid, padding=1.0) + 5e-4 * np.random.default_rng(0).normal(size=SHAPE)
    scan = field_map(field, mask, grid, noise=5e-4, magnitude=mask, radians_per_ppm=40.0)
    off = (np.asarray(METHODS[name](scan).chi) - chi)[mask]
    assert np.linalg.norm(off - off.mean()) / np.linalg.norm(chi[mask] - chi[mask].mean()) < 0.05


def test_a_slab_is_inverted_as_a_whole_head_is():
    """Periodic images of a thin slab lie near: they must not count."""
    shape, size, rng = (60, 60, 12), (1.0, 1.0, 2.0), np.random.default_rng(0)
    at = np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * d for n, d in zip(shape, size)], indexing="ij"))
    mask = (np.hypot(at[0], at[1]) < 27) & (np.abs(at[2]) < 10)
    chi = np.zeros(shape)
    for _ in range(12):
        centre = np.append(rng.uniform(-18, 18, 2), rng.uniform(-7, 7)).reshape(3, 1, 1, 1)
        chi[np.linalg.norm(at - centre, axis=0) < 5] = rng.uniform(-0.1, 0.1)
    grid = geometry(shape, size, (0.3, 0.0, 0.95))
    field = np.asarray(forward_field(chi * mask, grid, padding=4.0)) + 1e-3 * rng.normal(size=shape)
    off = (np.asarray(METHODS["tv"](field_map(field, mask, grid, noise=1e-3)).chi) - chi)[mask]
    assert np.linalg.norm(off - off.mean()) / np.linalg.norm(chi[mask] - chi[mask].mean()) < 0.2
