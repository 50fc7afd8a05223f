"""The learned inversion as it is shipped: on a grid that it never saw, whole and in tiles, with its deviation."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import qsmjax
from qsmjax.inference.network import load_network
from qsmjax.inference.shipped import INVERSIONS, load_shipped
from qsmjax.io.weights import save_weights
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry

SHAPE = (40, 36, 30)
GRID = geometry(SHAPE, (1.0, 1.1, 1.6), (0.4, 0.1, 0.9))
AT = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
MASK = np.linalg.norm(AT / np.asarray([15, 14, 12])[:, None, None, None], axis=0) < 1
CHI = np.where((np.abs(AT) < 5).all(axis=0), 0.12, -0.02) * MASK
NOISE = 1e-3


@pytest.fixture(scope="module")
def scan():
    """A cube in a ball, oblique, with noise."""
    field = np.asarray(forward_field(CHI, GRID, padding=0.5))
    return field_map(field + NOISE * np.random.default_rng(0).normal(size=SHAPE), MASK, GRID, noise=NOISE)


def test_the_shipped_network_inverts_with_a_deviation(scan):
    solution = qsmjax.load("learned")(scan)
    # a map's own mean is not in its field: it is left out
    error = lambda chi: (np.asarray(chi) - CHI)[MASK] - (np.asarray(chi) - CHI)[MASK].mean()
    assert np.linalg.norm(error(solution.chi)) < 0.5 * np.linalg.norm(error(INVERSIONS["tkd"](scan).chi))
    std = np.asarray(solution.std)
    assert not std[~MASK].any() and not np.asarray(solution.chi)[~MASK].any()
    assert np.mean(np.abs(error(solution.chi)) < 2 * std[MASK]) > 0.8


@pytest.mark.parametrize("noise", [1e-6, 1e-2], ids=["no noise", "noise alone"])
def test_what_is_unlike_any_head_is_left_to_total_variation(noise):
    width = np.linalg.norm(AT, axis=0)
    chi = 0.1 * np.exp(-((width / 4) ** 2))
    field = np.asarray(forward_field(chi, GRID, padding=0.5)) + noise * np.random.default_rng(0).normal(size=SHAPE)
    scan = field_map(field, None, GRID, noise=noise)
    inside = width < 8
    error = lambda name: (np.asarray(INVERSIONS[name](scan).chi) - chi)[inside].std()
    assert error("learned") < 2 * error("tv") + 1e-3


def test_a_constant_in_the_field_is_no_sources(scan):
    invert = lambda field: np.asarray(qsmjax.load("learned")(scan.replace(field=field), bootstrap=False).chi)
    np.testing.assert_allclose(invert(scan.field + 0.1 * MASK), invert(scan.field + 0.05 * MASK), atol=1e-4)
    np.testing.assert_allclose(invert(scan.field + 0.1 * MASK)[MASK], invert(scan.field)[MASK], atol=0.02)


@pytest.mark.parametrize("name", ["learned", "learned_total"])
def test_a_rehearsal_moves_the_deviation_alone(scan, name):
    rehearsed, plain = (INVERSIONS[name](scan, bootstrap=flag) for flag in (True, False))
    np.testing.assert_array_equal(rehearsed.chi, plain.chi)
    ratio = np.asarray(rehearsed.std)[MASK] / np.asarray(plain.std)[MASK]
    assert 0.2 < ratio.min() < ratio.max() < 5 and ratio.std() > 1e-3 and not np.asarray(rehearsed.std)[~MASK].any()


def test_tiles_are_the_whole(scan):
    whole, tiled = INVERSIONS["learned"](scan), INVERSIONS["learned"](scan, tile=16, halo=16)
    assert np.abs(np.asarray(tiled.chi - whole.chi)).max() < 2e-3
    assert np.abs(np.asarray(tiled.chi - whole.chi)).mean() < 1e-4


def test_a_network_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="must be one of learned"):
        load_shipped("qsmnot")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "a stage at least, got none"),
        ({"stage_0": {"Conv3d_0": {"kernel": np.zeros((3, 3, 3, 8, 4), np.float32)}}}, "must be those of the network"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused_by_the_name_of_their_file(tmp_path, variables, message):
    file = tmp_path / "mine.safetensors"
    save_weights(file, variables, {"name": "mine", "network": {"name": "correction", "width": [4, 4]}})
    with pytest.raises(ValueError, match=f"mine.safetensors: .*{message}"):
        load_network(file)


def test_it_is_traced_over_field_mask_and_grid(scan):
    invert = qsmjax.load("learned")
    # a solution's types are no shapes
    chi, std = jax.eval_shape(lambda scan: (invert(scan).chi, invert(scan).std), scan)
    assert chi.shape == std.shape == SHAPE
    slope = jax.eval_shape(jax.grad(lambda field: invert(scan.replace(field=field)).chi.sum()), scan.field)
    assert slope.shape == SHAPE


ALONE = """
import threading
import jax
import jax.numpy as jnp
import qsmjax
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry

compiled = {"MainThread": 0}

def heard(event, seconds, **_):
    name = threading.current_thread().name
    compiled[name] = compiled.get(name, 0) + ("backend_compile" in event)

jax.monitoring.register_event_duration_secs_listener(heard)
shape = (24, 20, 22)
noise = 0.01 * jax.random.normal(jax.random.key(0), shape)
mask = jnp.ones(shape, bool).at[:2].set(False)
scan = field_map(noise, mask, geometry(shape), noise=1e-3)
invert = qsmjax.load("learned")
from qsmjax.models import unrolled
begin = unrolled.start

def start(scan, **call):
    made = begin(scan, **call)
    if not call:
        compiled["MainThread"] = 0
    return made

unrolled.start = start
jax.block_until_ready(invert(scan, residue=False))
print(compiled.pop("MainThread"), sum(compiled.values()))
"""


def test_all_that_follows_the_start_is_compiled_ahead():
    """In a process of its own: the types' checker knows no shapes in place of arrays, and ends the walk ahead."""
    told = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True).stdout.split()
    # what puts the map back on its grid comes after the flow
    assert int(told[0]) <= 3 and int(told[1]) >= 5, told
