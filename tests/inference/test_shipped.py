"""What is shipped: files with a card each, functions that say what the files take, QSMnets that beat a closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import qsmjax
from qsmjax.cli.settings import options_of
from qsmjax.inference.shipped import FOLDER, INVERSIONS, NETWORKS, load_shipped, shipped_network
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry
from qsmjax.training.config import HEEDED

SHAPE = (32, 30, 28)
AT = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
MASK = np.linalg.norm(AT / np.asarray([14, 13, 12])[:, None, None, None], axis=0) < 1
CHI = np.where((np.abs(AT) < 5).all(axis=0), 0.12, -0.02) * MASK


def test_every_network_has_its_file_and_its_card():
    assert {path.stem for path in FOLDER.iterdir()} == set(NETWORKS)
    for name, function in NETWORKS.items():
        card = shipped_network(name).card
        assert card["name"] == name and card["licence"] == "Apache-2.0" and "Apache-2.0" in card["training_data"]
        assert card["scores"] and card["step"] and card["trained"]["seconds"] and card["measured"]["nrmse_percent"]
        kind = card["network"]["name"]
        assert set(card["config"]) <= set(HEEDED[kind]), "what the run did not heed is not told of it"
        assert kind == "qsmnet" or (card["optimisation"] and card["rounds"])
        assert not any(str(value).startswith("/") for value in card["config"].values()), "no place of one machine"
        assert (FOLDER / f"{name}.safetensors").stat().st_size < 16e6
        # a card without factors for a rehearsal has nothing to leave out
        heeded = set(options_of(load_shipped(name))) - ({"bootstrap"} if "bootstrap" not in card else set())
        assert set(options_of(function)) == heeded


def test_tiles_of_a_qsmnet_are_the_whole():
    mask = np.zeros(SHAPE)
    mask[2:25, 3:24, 1:22] = 1
    scan = field_map(np.random.default_rng(1).normal(size=SHAPE) * 0.01, mask, geometry(SHAPE), noise=1e-3)
    whole, tiled = (np.asarray(qsmjax.load("qsmnet")(scan, tile=tile).chi) for tile in (None, 64))
    np.testing.assert_allclose(tiled, whole, atol=1e-6)


def test_a_qsmnet_on_its_own_grid_is_compiled_mapped_and_differentiated():
    shape = (16, 16, 16)
    field = jnp.asarray(0.01 * np.random.default_rng(2).normal(size=shape), jnp.float32)
    mask = np.pad(np.ones((9, 11, 10), bool), [(3, 4), (2, 3), (4, 2)])
    network, known = qsmjax.load("qsmnet"), field_map(field, mask, geometry(shape, (1, 1, 1), (0, 0, 1)))
    run = lambda field: network(dataclasses.replace(known, field=field)).chi
    squares = jax.jit(jax.vmap(jax.value_and_grad(lambda field: jnp.sum(run(field) ** 2))))
    sums, slopes = squares(jnp.stack([0 * field, field]))
    np.testing.assert_allclose(sums[1], jnp.sum(run(field) ** 2), rtol=1e-4)
    slope = np.asarray(slopes[1])
    assert np.isfinite(slope).all() and slope[mask].all() and not slope[~mask].any()


@pytest.mark.parametrize("traced", ["field", "mask", "geometry"])
def test_a_traced_scan_off_the_networks_grid_gets_one_line(traced):
    known = field_map(np.ones(SHAPE), MASK, geometry(SHAPE, (2, 1, 1)))
    run = lambda part: qsmjax.load("qsmnet")(dataclasses.replace(known, **{traced: part})).chi
    with pytest.raises(ValueError, match=f"{traced} must be known .*models.scaling.predict"):
        jax.eval_shape(run, getattr(known, traced))


def test_an_empty_mask_is_refused_on_any_grid():
    for size in (1, 2):
        with pytest.raises(ValueError, match="mask must have at least one voxel"):
            qsmjax.load("qsmnet")(field_map(np.ones(SHAPE), np.zeros(SHAPE), geometry(SHAPE, (size, 1, 1))))


@pytest.mark.parametrize("name", ["qsmnet", "qsmnet_plus"])
def test_a_shipped_qsmnet_has_less_error_than_a_closed_form(name):
    grid = geometry(SHAPE, (1, 1, 1), (0, 0, 1))
    noise = 1e-3 * np.random.default_rng(0).normal(size=SHAPE)
    scan = field_map(np.asarray(forward_field(CHI, grid, padding=0.5)) + noise, MASK, grid, noise=1e-3)
    solution = qsmjax.load(name)(scan)
    assert solution.std is None and not np.asarray(solution.chi)[~MASK].any()
    error = lambda chi: (np.asarray(chi) - CHI)[MASK].std()
    assert error(solution.chi) < error(INVERSIONS["tkd"](scan).chi)
