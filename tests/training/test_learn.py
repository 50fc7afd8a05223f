"""The learned inversion's run: scans whose fields hold all sources, patches turned with their grid, resuming."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qsmjax.inference.network import load_network
from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.io.weights import load_weights
from qsmjax.models import unrolled
from qsmjax.models.build import build
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry
from qsmjax.training import bank, correction, learn, patches, progress, scans, sight, stage
from qsmjax.training.arrivals import Arrivals
from qsmjax.training.config import with_settings
from qsmjax.training.devices import CompiledStep, compile_step
from qsmjax.training.presets import preset
from qsmjax.training.progress import Run
from qsmjax.training.scans import draw_scan
from qsmjax.training.totals import TOTALS, load_total

SMALL = "width=16 dtype=float32 subjects=1 scans=1 patch=16 batch=2 stages=2 steps=4 validate_every=2"
CONFIG = with_settings(preset("learned"), SMALL.split())
NETWORK = build(CONFIG.model())


@pytest.fixture(scope="module", autouse=True)
def workdir(tmp_path_factory):
    """A work folder with label maps, and a bank of one subject in small boxes, with what was seen of it."""
    folder = tmp_path_factory.mktemp("learn")
    (folder / "labels").mkdir()
    index = np.indices((40, 40, 40)) - 19.5
    r = np.sqrt((index**2).sum(0))
    labels = np.select([r < 12, r < 15, r < 17, r < 19], [2, 3, 24, 515], 0)
    labels[(np.abs(index[0]) > 2) & (np.abs(index[0]) < 7) & (np.abs(index[1]) < 4) & (np.abs(index[2]) < 3)] = 10
    save_volume(folder / "labels" / "head.nii.gz", labels, new_volume(labels, np.diag([2.0, 2, 2, 1])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bank, "BOX", 24)
        patch.setattr(bank, "BOXES", 1)
        assert list(bank.make_bank(folder / "bank", [folder / "labels" / "head.nii.gz"], [0])) == [0]
        yield folder


@pytest.fixture(scope="module")
def seen(workdir):
    """What the first stage sees of the bank."""
    (scans,) = sight.see_bank(workdir / "bank", workdir / "stage_0" / "seen", [0], {}, NETWORK, None)
    return scans


def test_a_banks_workers_take_the_cores_in_turn(monkeypatch):
    taken, behind, begun = [], [], multiprocessing.get_context("spawn").Value("i", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 3}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: taken.append(cores), raising=False)
    monkeypatch.setattr(os, "nice", behind.append, raising=False)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    for _ in range(3):
        bank._begin_worker(begun)
    assert taken == [{3}, {5}, {3}] and behind == [bank.BEHIND] * 3


def test_who_takes_no_more_subjects_waits_for_those_alone_that_are_being_made(workdir, tmp_path, monkeypatch):
    made = []
    # threads, which begin sooner than processes
    monkeypatch.setattr(bank, "ProcessPoolExecutor", lambda workers, *_, **__: ThreadPoolExecutor(workers))
    monkeypatch.setattr(bank, "_make_subject", lambda *words: made.append((time.sleep(0.05), words[-1])[1]))
    subjects = bank.make_bank(tmp_path, [workdir], [7, *range(7), *range(8, 40)], workers=2)
    assert next(subjects) == 7
    subjects.close()
    assert 7 in made and len(made) < 20


def test_an_error_in_seeing_ends_the_simulation_too(workdir, tmp_path, monkeypatch):
    closed = []

    def make(*_, **__):
        try:
            yield from range(100)
        finally:
            closed.append(True)

    def see(bank, folder, made, *_, **__):
        next(made)
        yield {}
        raise OSError("no space left")

    monkeypatch.setattr(learn, "make_bank", make)
    monkeypatch.setattr(learn, "see_bank", see)
    run = Run(tmp_path, CONFIG, NETWORK, "", print, [])
    with Arrivals(learn.coming(run, [], {}, ())) as arrivals, pytest.raises(OSError, match="no space"):
        arrivals.first(2)
    assert closed


def test_fields_are_made_by_what_lies_in_the_box(workdir):
    found = sorted((workdir / "bank").glob("*.npz"))
    assert len(found) == 2
    drawn = []
    for path in found:
        source = bank.load_source(path)
        for seed in range(6):
            example = draw_scan(np.random.default_rng(seed), source)
            mask = example.mask
            grid = geometry(mask.shape, example.voxel_size, example.b0_dir)
            off = (np.asarray(forward_field(source.chi, grid, padding=0.5)) - example.field)[mask]
            # noise, a residue of up to a quarter, or what V-SHARP leaves, which cuts the mask
            noise = example.noise[mask].mean() or scans.NOISE[1]
            filtered = mask.sum() < source.mask.sum()
            assert filtered or off.std() < 0.5 * example.field[mask].std() + 1.5 * noise
            assert not example.chi[~mask].any() and not example.noise[~mask].any() and not example.field[~mask].any()
            np.testing.assert_array_equal(example.chi[mask], source.chi[mask])
            drawn.append((example.noise.any(), filtered, tuple(example.b0_dir)))
    told, filtered, directions = (set(column) for column in zip(*drawn))
    assert told == {True, False} and filtered == {True, False} and len(directions) > 3, "of every kind there are some"


def test_a_source_and_its_scans_come_again(workdir, tmp_path):
    path = sorted((workdir / "bank").glob("*.npz"))[0]
    source = bank.load_source(path)
    bank.save_source(tmp_path / "again.npz", source)
    again = bank.load_source(tmp_path / "again.npz")
    np.testing.assert_allclose(again.chi, source.chi, atol=1e-7)
    first, second = (draw_scan(np.random.default_rng(3), source) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_patch_is_turned_with_its_grid(seen):
    (scan, *_) = seen.values()
    coordinate = np.broadcast_to(np.arange(scan.mask.shape[0], dtype=np.float32)[:, None, None], scan.mask.shape)
    scan = scan._replace(chi=coordinate, b0_dir=np.asarray([0.8, 0.0, 0.6]), voxel_size=np.asarray([1.0, 2.0, 3.0]))
    for seed in range(8):
        patch = correction.cut(np.random.default_rng(seed), scan, 16)
        axis = int(np.argmin(patch["voxel_size"]))
        steps = np.diff(patch["chi"], axis=axis)
        rise = np.median(steps[steps != 0])
        assert abs(patch["b0_dir"][axis] - 0.8 * rise) < 1e-6, "the axis of index 0, and its sign, go together"
        assert patch["features"].shape == (16, 16, 16, 8)


class Known(nn.Module):
    """A network that makes a change that is known."""

    change: Any

    def __call__(self, features, numbers):
        return self.change, jnp.zeros_like(self.change)


def test_the_loss_counts_from_the_start_whose_own_error_is_one(workdir, seen):
    features, numbers = jnp.zeros((1, 16, 16, 16, unrolled.FEATURES)), jnp.zeros((1, unrolled.ABOUT))
    params = NETWORK.init(jax.random.key(0), features, numbers)["params"]
    kinds = patches.kinds_of(seen)
    assert [len(scans) for scans in kinds] == [1, 1], "a head and a box"
    batch = jax.tree.map(jnp.asarray, patches.draw(CONFIG, 0, kinds, 2))
    for network, expected in ((NETWORK, 1), (Known(-correction.start_error(batch)), 0)):
        terms = jax.jit(partial(correction.loss_of, network))(params, batch)[1]
        found = [terms[name] for name in ("l1", "rms", "gradient", "dissimilarity")]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_next_stage_sees_what_the_one_before_made(workdir, seen):
    features, numbers = jnp.zeros((1, 16, 16, 16, unrolled.FEATURES)), jnp.zeros((1, unrolled.ABOUT))
    params = NETWORK.init(jax.random.key(0), features, numbers)["params"]
    name, scan = next(iter(seen.items()))
    source = bank.load_source(workdir / "bank" / "0000_0.npz")
    example = draw_scan(np.random.default_rng((0, 0, 0, 0)), source)
    assert name == "0000_0_0"
    same = sight.see_next(sight.framed(example), scan, NETWORK, params)
    # no change yet: half precision alone, which the residual over the noise feels most
    off = np.abs(np.float32(same.features) - np.float32(scan.features))
    assert off.mean((0, 1, 2)).max() < 0.01 and off.max() < 1
    params["_Zero_0"]["bias"] = params["_Zero_0"]["bias"] + 0.1
    moved = sight.see_next(sight.framed(example), scan, NETWORK, params)
    maps = [unrolled.UNIT * np.sinh(np.float32(each.features[..., 0])) for each in (scan, moved)]
    rise = (maps[1] - maps[0])[scan.mask]
    assert (rise > 0.9 * 0.1 * 0.2 * unrolled.UNIT).all(), "the maps that are looked at hold the change"
    assert not maps[1][~scan.mask].any()


def test_what_was_seen_is_kept_until_something_else_would_be_seen(workdir, seen, tmp_path):
    features, numbers = jnp.zeros((1, 16, 16, 16, unrolled.FEATURES)), jnp.zeros((1, unrolled.ABOUT))
    params = NETWORK.init(jax.random.key(0), features, numbers)["params"]
    again = lambda: list(sight.see_bank(workdir / "bank", tmp_path, [0], seen, NETWORK, params))
    made = lambda: {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    again()
    first = made()
    again()
    assert made() == first and len(first) == len(seen)
    params["_Zero_0"]["bias"] = params["_Zero_0"]["bias"] + 0.1
    again()
    assert all(made()[name] > time for name, time in first.items()), "the stage before has been trained on"


class Sloping(nn.Module):
    """A network of two weights, of which each makes a part of the map and of its spread."""

    @nn.compact
    def __call__(self, features, numbers):
        made = nn.Dense(2)(features)
        return 0.01 * made[..., 0], made[..., 1] - 4


def test_two_devices_take_the_step_of_one(workdir, seen, monkeypatch):
    # whose windows take seconds to compile
    monkeypatch.setattr(correction, "xsim_map", lambda chi, truth: 1 - (chi - truth) ** 2)
    batch = patches.draw(CONFIG, 0, patches.kinds_of(seen), 2)
    # shares of unequal size: the mean of the devices' means would not be the mean
    batch["mask"][0, 4:] = False
    features, numbers = jnp.zeros((1, 16, 16, 16, unrolled.FEATURES)), jnp.zeros((1, unrolled.ABOUT))
    params = Sloping().init(jax.random.key(0), features, numbers)["params"]
    optimiser, made = optax.sgd(1.0), []
    for count in (1, 2):
        step = compile_step(
            partial(stage.take_step, network=Sloping(), optimiser=optimiser), jax.local_devices()[:count]
        )
        reached, terms = step.run(step.place(progress.begin(params, optimiser)), batch)
        made.append((step.take(reached).params, step.take(terms)))
    for one, two in zip(*map(jax.tree.leaves, made), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


@pytest.fixture
def no_scans(monkeypatch):
    """No bank is made: what was to be told before comes too late."""
    monkeypatch.setattr(learn, "make_bank", lambda *_, **__: pytest.fail("scans were simulated first"))


def test_what_cannot_be_trained_is_told_before_the_scans(no_scans, workdir, tmp_path):
    begin = partial(learn.learn, tmp_path, labels=workdir / "labels", say=lambda _: None)
    with pytest.raises(ValueError, match=r"multiple of devices x accumulate \(4 x 1\), got 2"):
        begin(CONFIG)
    config = dataclasses.replace(CONFIG, begin="mine.safetensors")
    with pytest.raises(ValueError, match=r"begin must be weights of the .* \(width 16, blocks 1\), got others in mine"):
        begin(config, begun={"stage_0": {}}, devices=1)


def test_a_run_goes_on_with_its_own_label_maps_alone(no_scans, workdir, tmp_path):
    assert learn.keep_names(tmp_path, [workdir / "labels" / "head.nii.gz"]) == "1 label maps: head.nii.gz"
    others = tmp_path / "others"
    others.mkdir()
    (others / "another.nii.gz").symlink_to(workdir / "labels" / "head.nii.gz")
    with pytest.raises(ValueError, match=r"data must stay those of .*head.nii.gz\), got 1 label maps: another.nii.gz"):
        learn.learn(tmp_path, CONFIG, others, lambda _: None, devices=1)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("lost", ["loss", "gradient_norm"])
def test_a_state_that_is_not_finite_is_not_saved(lost, told, seen, tmp_path, monkeypatch):
    terms = {"loss": np.float32(1), "gradient_norm": np.float32(1), lost: np.float32(np.nan)}
    same = lambda tree: tree
    monkeypatch.setattr(stage, "compile_step", lambda *_: CompiledStep(lambda state, _: (state, terms), same, same))
    monkeypatch.setattr(stage, "stop_signals", lambda: contextlib.nullcontext(lambda _: told))
    run = Run(tmp_path, CONFIG, NETWORK, "", print, jax.local_devices()[:1], {"stage_0": {"a": np.zeros(2)}})
    with pytest.raises(ValueError, match=f"{lost} must stay finite, got nan by step {1 if told else 2}: lower"):
        stage.train_stage(run, Arrivals(one for one in [seen]), [], CONFIG.steps)
    assert not (tmp_path / "stage_0").exists()


@pytest.mark.slow
def test_a_run_that_was_ended_goes_on_to_the_same_bits(workdir, tmp_path):
    lines = []
    config = dataclasses.replace(CONFIG, steps=4, subjects=5, joining=0.9)
    (tmp_path / "bank").mkdir()
    for path in (workdir / "bank").glob("*.npz"):
        for number in range(config.subjects):
            (tmp_path / "bank" / f"{number:04d}{path.name[4:]}").symlink_to(path)
    weights = []
    for name, stops in (("whole", [8]), ("twice", [2, 6, 8])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "bank").symlink_to(tmp_path / "bank")
        for until in stops:
            learn.learn(folder, config, workdir / "labels", lines.append, devices=1, until=until)
        weights.append(load_weights(folder / "weights.safetensors"))
    folder = tmp_path / "stopped"
    folder.mkdir()
    (folder / "bank").symlink_to(tmp_path / "bank")
    with pytest.MonkeyPatch.context() as patch:
        draw, drawn = patches.draw, []

        def signalled(*words):
            drawn.append(words)
            if len(drawn) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return draw(*words)

        patch.setattr(patches, "draw", signalled)
        # batches are drawn ahead of the steps
        assert 0 < learn.learn(folder, config, workdir / "labels", lines.append, devices=1) < 8, "saved after its step"
        # and gone on with as on a GPU
        patch.setattr(stage, "pools", lambda devices: True)
        assert learn.learn(folder, config, workdir / "labels", lines.append, devices=1) == 8
    weights.append(load_weights(folder / "weights.safetensors"))
    (first, card), (second, _), (third, _) = weights
    jax.tree.map(np.testing.assert_array_equal, first, third)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert (
        set(first) == {"stage_0", "stage_1"}
        and card["step"] == 8
        and len(card["calibration"]) == 2
        and "RMS" in lines[-1]
    )
    assert progress.stored_run(tmp_path / "whole") == config
    chi = np.zeros((20, 20, 20))
    chi[8:12, 8:12, 8:12] = 0.1
    grid = geometry(chi.shape, (1, 1, 2), (0.6, 0, 0.8))
    mask = np.linalg.norm(np.indices(chi.shape) - 9.5, axis=0) < 9
    solution = load_network(tmp_path / "whole").invert(field_map(forward_field(chi, grid), mask, grid, noise=1e-3))
    assert np.abs(np.asarray(solution.chi) - chi)[mask].mean() < 0.01
    assert (np.asarray(solution.std)[mask] > 0).all() and not np.asarray(solution.std)[~mask].any()


@pytest.mark.slow
def test_a_run_on_total_fields_begins_from_weights(workdir, tmp_path):
    config = dataclasses.replace(CONFIG, input="totalfield", stages=1, steps=2, learning_rate=1e-9)
    params = stage.draw_params(NETWORK, 7)
    labels = workdir / "labels"
    assert learn.learn(tmp_path, config, labels, lambda _: None, begun={"stage_0": params}, devices=1) == 2
    jax.tree.map(
        lambda made, given: np.testing.assert_allclose(made, given, atol=1e-6),
        load_weights(tmp_path / "weights.safetensors")[0]["stage_0"],
        dict(params),
    )
    scans_kept = [load_total(path) for path in sorted((tmp_path / "bank").glob("*.npz"))]
    assert len(scans_kept) == len(TOTALS.names()) == len(list((tmp_path / "stage_0" / "seen").glob("0*.npz")))
    for kept in scans_kept:
        grid = geometry(kept.mask.shape, kept.voxel_size, kept.b0_dir)
        made = np.asarray(forward_field(kept.chi, grid, padding=0.5))
        deep = kept.mask & (kept.noise > 0) & (kept.noise <= np.median(kept.noise[kept.mask]))
        off = (kept.field - made)[deep]
        # the background of air and bone has some hundred times the tissue's field
        assert off.std() < 1.5 * made[deep].std() and not kept.field[~kept.mask].any()
