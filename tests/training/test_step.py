"""One step: the same on one device and on four, whole or in parts; and lowered for TPUs."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.models.build import build
from qsmjax.models.scaling import Scaling
from qsmjax.training import correction
from qsmjax.training.config import TrainConfig, with_settings
from qsmjax.training.devices import AXIS, choose_devices, compile_step
from qsmjax.training.samples import make_samples
from qsmjax.training.state import init_state, make_optimiser
from qsmjax.training.step import gradient_of, train_step

TEXTS = ["width=2", "depth=1", "kernel=3", "patch=8", "batch=4", "ema=0.9", "clip=1", "warmup=2", "learning_rate=0.01"]
CONFIG = with_settings(TrainConfig(), [*TEXTS, "steps=50"])
NETWORK = build(CONFIG.model())
SCALING = Scaling(*map(jnp.float32, (0.0, 0.02, 0.0, 0.05)))


@pytest.fixture(scope="module")
def state():
    return jax.jit(partial(init_state, CONFIG, NETWORK))().replace(scaling=SCALING)


@pytest.fixture(scope="module")
def batch():
    chi = np.asarray(0.05 * jax.random.normal(jax.random.key(0), (4, 8, 8, 8)))
    mask = np.ones((4, 8, 8, 8), bool)
    # shares of unequal size: the mean of the devices' means would not be the mean
    mask[0, 1:] = False
    # fields as if measured: making them, and that it does not depend on the devices, is tested with the samples
    return {"index": np.arange(4, dtype=np.int32), "chi": chi * mask, "mask": mask, "field": chi * mask / 3}


def gradients(state, batch, *, config=CONFIG, network=NETWORK, axis_name=None):
    samples = make_samples(config, state.step, batch)
    return state, gradient_of(state, samples, config, network, axis_name)


def on_devices(count, state, batch, **options):
    compiled = compile_step(partial(gradients, **options), jax.local_devices()[:count])
    return compiled.take(compiled.run(compiled.place(jax.device_get(state)), batch)[1])


def assert_close(a, b, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * max(float(np.abs(y).max()), 1))


@pytest.fixture(scope="module")
def one_device(state, batch):
    return on_devices(1, state, batch)


def test_four_devices_give_the_gradient_of_one(state, batch, one_device):
    """Gradients, loss sums, running statistics and the count of voxels, to 1e-5."""
    assert_close(on_devices(4, state, batch), one_device)


def test_parts_that_are_alike_give_the_whole_s_gradient(state, batch):
    alike = {**batch, **{n: np.broadcast_to(batch[n][1:2], batch[n].shape) for n in ("chi", "mask", "field")}}
    whole = on_devices(1, state, alike)
    parts = on_devices(1, state, alike, config=dataclasses.replace(CONFIG, accumulate=2))
    assert_close(parts[0], whole[0], 1e-4)
    assert_close(parts[1], whole[1], 1e-4)


def test_steps_lower_the_loss_and_move_the_average(state, batch):
    step = compile_step(partial(train_step, config=CONFIG, network=NETWORK), jax.local_devices()[:1])
    placed, losses = step.place(jax.device_get(state)), []
    for _ in range(15):
        placed, metrics = step.run(placed, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    assert int(placed.step) == 15
    terms = [float(metrics[f"loss_{n}"]) for n in ("l1", "model", "gradient")]
    np.testing.assert_allclose(losses[-1], np.dot(terms, CONFIG.loss_weights()), rtol=1e-5)
    shift = lambda a, b: sum(float(jnp.sum(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))
    assert 0 < shift(placed.ema["params"], state.params) < shift(placed.params, state.params)
    assert placed.variables()["params"] is placed.ema["params"]


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_step_lowers_for_other_platforms(state, batch, platform):
    half = dataclasses.replace(CONFIG, dtype="bfloat16", remat=True)
    step = partial(train_step, config=half, network=build(half.model()))
    assert jax.export.export(jax.jit(step), platforms=[platform])(state, batch).platforms == (platform,)


def test_a_batch_that_cannot_be_shared_is_refused():
    assert len(choose_devices(8)) == 4 and len(choose_devices(3, limit=1)) == 1
    with pytest.raises(ValueError, match=r"multiple of devices x accumulate \(4 x 2\), got 4"):
        choose_devices(4, 2)


def test_a_step_hears_of_an_axis_where_devices_share_it():
    heard = []
    step = lambda state, batch, axis_name: heard.append(axis_name) or (state, batch)
    for count in (1, 4):
        compiled = compile_step(step, jax.local_devices()[:count])
        compiled.run(compiled.place(np.zeros(2)), np.zeros((4, 3)))
    assert heard == [None, AXIS]


def rates(optimiser, steps):
    """The rate of each step: by a gradient that stays, Adam moves a parameter by just that."""

    def step(carry, _):
        params, state = carry
        updates, state = optimiser.update(jnp.ones_like(params), state, params)
        return (params, state), -updates[0]

    params = jnp.zeros(1)
    return np.asarray(jax.lax.scan(step, (params, optimiser.init(params)), length=steps)[1])


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.0), ("constant", 0.01)])
def test_the_rate_rises_from_zero_and_ends_as_its_schedule_says(schedule, last):
    config = dataclasses.replace(CONFIG, steps=20, warmup=5, schedule=schedule, clip=0.0)
    found = rates(make_optimiser(config), 21)
    np.testing.assert_allclose(found[[0, 1, 5, 20]], [0, 0.002, 0.01, last], rtol=1e-4, atol=1e-7)
    clipped = rates(make_optimiser(dataclasses.replace(config, clip=0.5)), 21)
    np.testing.assert_allclose(clipped, found, rtol=1e-4, atol=1e-7)


def test_the_correction_s_rate_rises_for_fifty_steps_and_falls_to_zero():
    # what is no kernel has a tenth of the rate
    found = rates(correction.make_optimiser(100, 0.01), 101)
    np.testing.assert_allclose(found[[0, 25, 50, 75, 100]], [0, 5e-4, 1e-3, 5e-4, 0], rtol=2e-3, atol=1e-7)
