"""QSMnet's structure against the paper, and what holds for any size of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.models import qsmnet
from qsmjax.models.build import build
from qsmjax.models.scaling import Scaling, predict

SMALL = {"name": "qsmnet", "width": 2, "depth": 2, "kernel": 3}


@pytest.fixture(scope="module")
def small():
    network = build(SMALL)
    return network, jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))


def test_layers_and_weights_are_the_paper_s(monkeypatch):
    """19 convolutions, 18 norms, 18 activations, 4 poolings, 4 transposed convolutions, 4 concatenations."""
    calls: dict[str, int] = {}

    def counted(name, function):
        def call(*args, **kwargs):
            calls[name] = calls.get(name, 0) + 1
            return function(*args, **kwargs)

        return call

    def count_module(following, args, kwargs, context):
        name = type(context.module).__name__
        if context.method_name == "__call__":
            calls[name] = calls.get(name, 0) + 1
        return following(*args, **kwargs)

    monkeypatch.setitem(qsmnet.ACTIVATIONS, "relu", counted("activation", nn.relu))
    monkeypatch.setattr(qsmnet, "max_pool3d", counted("pool", qsmnet.max_pool3d))
    monkeypatch.setattr(qsmnet.jnp, "concatenate", counted("concatenate", jnp.concatenate))
    network = build({"name": "qsmnet"})
    with nn.intercept_methods(count_module):
        shapes = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 64, 1), jnp.float32))
    layers = {name: calls[name] for name in ("Conv3d", "BatchNorm", "activation", "pool", "Upsample3d")}
    assert layers == {"Conv3d": 19, "BatchNorm": 18, "activation": 18, "pool": 4, "Upsample3d": 4}
    # the convolutions themselves, on the platform of the test, concatenate nothing
    assert calls["concatenate"] == 4
    sizes = [(leaf.shape, leaf.size) for leaf in jax.tree.leaves(shapes["params"])]
    assert round(sum(size for _, size in sizes) / 1e6, 1) == 99.5
    assert sum(size for shape, size in sizes if shape[:3] == (5, 5, 5)) == 98_052_000
    widths = [shapes["params"][name]["conv_1"]["kernel"].shape[-1] for name in ("down_0", "down_3", "bottom", "up_0")]
    assert widths == [32, 256, 512, 32]


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 9, 5), (3, 1, 2)])
def test_any_size_goes_in_and_comes_out(small, shape):
    network, variables = small
    out = jax.jit(network.apply)(variables, jnp.ones((1, *shape, 1)))
    assert out.shape == (1, *shape, 1) and bool(jnp.all(jnp.isfinite(out)))


def test_an_odd_volume_is_one_padded_with_zeros(small):
    network, variables = small
    field = jax.random.normal(jax.random.key(1), (1, 7, 6, 5, 1))
    wide = jnp.pad(field, [(0, 0), (0, 1), (1, 1), (1, 2), (0, 0)])
    inner = network.apply(variables, wide)[:, :7, 1:7, 1:6]
    np.testing.assert_allclose(network.apply(variables, field), inner, atol=1e-5)


def test_options_keep_the_answer_and_the_parameters(small):
    network, variables = small
    field = jax.random.normal(jax.random.key(1), (1, 8, 8, 8, 1))
    plain = network.apply(variables, field)
    np.testing.assert_allclose(build({**SMALL, "remat": True}).apply(variables, field), plain, atol=1e-5)
    half = build({**SMALL, "dtype": "bfloat16"})
    assert half.apply(variables, field).dtype == jnp.float32
    np.testing.assert_allclose(half.apply(variables, field), plain, atol=0.05 * float(jnp.abs(plain).max()))


def test_prediction_is_masked_and_follows_the_scaling(small):
    network, variables = small
    field, mask = jax.random.normal(jax.random.key(1), (2, 8, 8, 8)), jnp.arange(8) < 6
    mask = jnp.broadcast_to(mask, (8, 8, 8))
    one = predict(network, variables, Scaling(0, 1, 0, 1), field, mask)
    two = predict(network, variables, Scaling(0.5, 2, 0, 3), 2 * field + 0.5, mask)
    np.testing.assert_allclose(two, 3 * one, rtol=1e-4, atol=1e-5)
    assert one.shape == field.shape and bool(jnp.all(one[..., 6:] == 0))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "unet"}, "name must be one of qsmnet"),
        ({"name": "qsmnet", "widht": 3}, "'widht': width"),
        ({"name": "qsmnet", "activation": "tanh"}, "activation must be one of relu"),
        ({"name": "qsmnet", "dtype": "float64"}, "dtype must be one of float32"),
    ],
)
def test_configs_that_describe_nothing_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        build(config)
