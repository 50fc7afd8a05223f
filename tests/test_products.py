"""On TPUs a product of float32 rounds to bfloat16 unless it says otherwise: all say so but the networks'."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.inversion import METHODS, cosmos
from qsmjax.phase.offsets import _fit_plane, combine_coils
from qsmjax.phase.signal_model import fit_signal
from qsmjax.phase.unwrap import unwrap_laplacian
from qsmjax.physics.cuboids import cuboid_field
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry
from qsmjax.physics.tensor import tensor_field
from qsmjax.pipeline import BACKGROUNDS
from qsmjax.recon.combine import whiten
from qsmjax.recon.espirit import espirit
from qsmjax.recon.grappa import grappa_fill, grappa_weights

SHAPE = (16, 14, 12)
GRID = geometry(SHAPE, (1.0, 1.2, 1.5), (0.3, 0.4, 0.866))
OPTIONS = {"vsharp": {"radii": (4.0, 3.0, 2.0)}}
IMAGE, ECHOES = jnp.ones(SHAPE, jnp.complex64), jnp.ones((3, *SHAPE), jnp.complex64)
TE = (0.005, 0.010, 0.015)
CALIBRATION = jnp.ones((4, 8, 8, 8), jnp.complex64)


def scan(field, b0_dir=(0.3, 0.4, 0.866)) -> FieldMap:
    grid = geometry(SHAPE, (1.0, 1.2, 1.5), b0_dir)
    return field_map(field, None, grid, noise=1e-3, magnitude=np.ones(SHAPE), radians_per_ppm=8.0)


CASES = {
    "forward_field": (lambda chi: forward_field(chi, GRID), IMAGE.real),
    "cuboid_field": (lambda chi: cuboid_field(chi, GRID), IMAGE.real),
    "tensor_field": (lambda a: tensor_field(a, GRID), ECHOES.real),
    "bipolar": (_fit_plane, IMAGE),
    "combine_coils": (combine_coils, ECHOES[:, None], ECHOES[:1].real),
    "fit_signal": (lambda signal, field: fit_signal(signal, TE, 3.0, field), ECHOES, IMAGE.real),
    "unwrap_laplacian": (unwrap_laplacian, IMAGE.real),
    "whiten": (whiten, ECHOES, ECHOES[:, 0, 0]),
    "espirit": (lambda signal: espirit(signal, SHAPE, kernel_size=(3, 3, 3)).maps, CALIBRATION),
    "grappa_weights": (lambda signal: grappa_weights(signal, (2, 2), kernel_size=(3, 2, 2)), CALIBRATION),
    "grappa_fill": (
        lambda signal, weights: grappa_fill(signal, weights, (2, 2), (0, 0), kernel_size=(3, 2, 2)),
        CALIBRATION,
        jnp.ones((12, 3, 4, 4), jnp.complex64),
    ),
    "cosmos": (lambda field: cosmos([scan(field), scan(field, (0, 0, 1))]).chi, IMAGE.real),
    **{f"inversion {name}": (lambda field, f=f: f(scan(field)).chi, IMAGE.real) for name, f in METHODS.items()},
    **{
        f"background {name}": (lambda field, f=f, name=name: f(scan(field), **OPTIONS.get(name, {})).field, IMAGE.real)
        for name, f in BACKGROUNDS.items()
    },
}


@pytest.mark.parametrize("name", CASES)
def test_no_product_is_rounded_on_a_tpu(name):
    run, *given = CASES[name]
    text = jax.export.export(jax.jit(run), platforms=["tpu"])(*given).mlir_module()
    products = [line for line in text.splitlines() if re.search(r"stablehlo\.(dot|convolution)", line)]
    assert not [line for line in products if "HIGHEST" not in line]
