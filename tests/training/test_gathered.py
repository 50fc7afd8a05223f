"""Patches gathered out of a pool are those that are cut of the scans."""

from functools import partial

import jax
import numpy as np
import pytest

from qsmjax.models.unrolled import FEATURES
from qsmjax.training import correction, patches, pool
from qsmjax.training.arrivals import Arrivals
from qsmjax.training.config import with_settings
from qsmjax.training.patches import Patches, draw
from qsmjax.training.presets import preset
from qsmjax.training.sight import Seen

CONFIG = with_settings(preset("learned"), ["patch=16", "batch=6"])
SHAPES = [(20, 24, 18), (12, 40, 9), (30, 17, 22)]
"""The second is smaller than a patch along two axes."""


def seen(number: int) -> Seen:
    rng, shape = np.random.default_rng(number), SHAPES[number % 3]
    mask = rng.uniform(size=shape) < 0.7
    mask[::4, ::4, ::4] = True
    features = rng.normal(size=(*shape, FEATURES)).astype(np.float16)
    chi = rng.normal(size=shape).astype(np.float32)
    return Seen(features, chi, mask, rng.uniform(1, 2, 3).astype(np.float32), rng.normal(size=3).astype(np.float32))


SCANS = [seen(number) for number in range(5)]


def batches(scans, rows, step):
    """Return a batch as it is cut, and as it is gathered."""
    places = pool.in_rows(scans)
    cut = draw(CONFIG, step, [scans[:2], scans[2:]], CONFIG.batch)
    told = draw(CONFIG, step, [places[:2], places[2:]], CONFIG.batch, pool.rows_of)
    return cut, jax.jit(pool.gathered)({**told, "pool": rows})


@pytest.mark.parametrize("chunk", [1000, 100_000])
@pytest.mark.parametrize("expected", [1, 10, 40_000])
def test_a_gathered_batch_is_the_one_that_is_cut(chunk, expected, monkeypatch):
    monkeypatch.setattr(pool, "CHUNK", chunk)
    held = pool.Pool(expected)
    for count in (3, 5):
        # others join
        rows = held.holding(pool.in_rows(SCANS[:count]))
        for step in range(4):
            cut, gathered = batches(SCANS[:count], rows, step)
            jax.tree.map(np.testing.assert_array_equal, cut, gathered)
    assert {part["mask"].all() for part in [cut]} == {False}


def test_what_is_there_is_not_brought_again(monkeypatch):
    held, brought = pool.Pool(40_000), []
    monkeypatch.setattr(held, "_bring", lambda seen, first: brought.append(first))
    places = pool.in_rows(SCANS)
    held._held = places[3].first
    held.holding(places)
    assert brought == [places[3].first, places[4].first]


def test_more_voxels_than_numbers_are_refused():
    wide = Seen(*(np.broadcast_to(np.float32(0), (2000, 1200, 900)) for _ in range(5)))
    with pytest.raises(ValueError, match="fewer than 2147483648 voxels, got 2160000000: take fewer subjects"):
        pool.in_rows([wide])


def test_a_batch_that_was_cut_stays_as_it_is():
    batch = draw(CONFIG, 0, [SCANS], 2, partial(correction.cut))
    assert pool.gathered(batch) is batch


def test_where_a_device_has_no_room_patches_are_cut(monkeypatch):
    def full(expected):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12000000000 bytes.")

    config = with_settings(CONFIG, ["subjects=4", "joining=0"])
    coming = ({f"{number:04d}_{source}_0": SCANS[number] for source in (0, 1)} for number in range(4))
    with Arrivals(coming) as arrivals:
        source = Patches(config, arrivals)
        monkeypatch.setattr(patches, "Pool", full)
        assert source.pool() is None
        before = source.batch(3)
        monkeypatch.undo()
        held = source.pool()
        places = sorted((scan for kind in source.own(3) for scan in kind), key=lambda scan: scan.first)
        after = pool.gathered({**source.batch(3), "pool": held.holding(places)})
    jax.tree.map(np.testing.assert_array_equal, before, after)
