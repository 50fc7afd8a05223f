"""float32 against float64, bf16 against float32: what rounding costs is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.inference.learned import learned_inversion
from qsmjax.inference.shipped import FOLDER
from qsmjax.io.weights import load_weights
from qsmjax.models.build import build
from qsmjax.models.scaling import Scaling, predict
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry

from .float64 import error, pairs

PPM = 1e-3
"""What bf16 in a network may cost, as a standard deviation [ppm]."""


# the second takes every odd path, and as long to compile
@pytest.mark.parametrize("shape", [(18, 15, 20), pytest.param((17, 13, 11), marks=pytest.mark.slow)])
def test_every_path_through_k_space_is_numpy_s_in_float64(shape):
    for name, ours, numpys in pairs(shape):
        # unwrapping divides by a symbol that nearly vanishes
        assert error(ours(), numpys()) < (5e-6 if name == "Laplacian unwrapping" else 1e-6), name


def scan(shape: tuple[int, int, int]) -> tuple[np.ndarray, FieldMap]:
    """A head's contrasts without its shape: chi of 0.03 ppm, in a ball, with noise."""
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    mask = np.linalg.norm(at, axis=0) < 0.9
    chi = mask * (0.12 * (np.abs(at) < 0.25).all(axis=0) + 0.02 * rng.normal(size=shape))
    grid = geometry(shape, (1.0, 1.0, 1.4), (0.4, 0.1, 0.9))
    field = np.asarray(forward_field(chi, grid)) + 1e-3 * rng.normal(size=shape)
    return chi, field_map(field, mask, grid, noise=1e-3)


def test_a_network_in_bf16_is_that_in_float32_to_a_ppb():
    chi, local = scan((16, 16, 16))
    inside = np.asarray(local.mask)
    nets = [
        build({"name": "qsmnet", "width": 4, "depth": 1, "kernel": 3, "dtype": dtype})
        for dtype in ("float32", "bfloat16")
    ]
    variables = jax.jit(nets[0].init)(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))
    scaling = Scaling(0.0, float(local.field[inside].std()), 0.0, float(chi[inside].std()))
    run = jax.jit(predict, static_argnums=0)
    full, half = (np.asarray(run(net, variables, scaling, local.field, local.mask))[inside] for net in nets)
    assert 0 < np.std(half - full) < PPM and np.std(full) > 5 * PPM


@pytest.mark.slow
def test_the_shipped_network_in_bf16_is_that_in_float32_to_a_ppb():
    variables, card = load_weights(FOLDER / "learned.safetensors")
    _, local = scan((32, 32, 32))
    made = [
        learned_inversion(build({**card["network"], "dtype": dtype}), variables, card)(local)
        for dtype in ("float32", "bfloat16")
    ]
    difference = np.asarray(made[1].chi - made[0].chi)
    assert 0 < np.abs(difference).max() < PPM
