"""Runs that are stopped, killed, resumed or crowded; and what they leave behind."""

import dataclasses
import errno
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from qsmjax.io.lock import locked
from qsmjax.models.build import build
from qsmjax.models.scaling import Scaling, predict
from qsmjax.training import journal, loop
from qsmjax.training.checkpoint import Checkpoints, load_for_inference
from qsmjax.training.config import TrainConfig, with_settings
from qsmjax.training.data import Maps, Patches
from qsmjax.training.record import read_rows

TEXTS = ["width=2", "depth=1", "kernel=3", "patch=8", "batch=4", "ema=0.9", "rotation=0", "learning_rate=0.01"]
CONFIG = with_settings(TrainConfig(), [*TEXTS, "steps=4", "validate_every=2", "checkpoint_every=1"])


class Silent:
    """Hears everything, and calls back at each step."""

    def __init__(self, at_step=lambda step: None):
        self.lines, self.at_step = [], at_step

    def begin(self, step, config, devices):
        self.lines.append(f"from {step} on {devices}")

    def stepped(self, step, loss):
        self.at_step(step)

    def said(self, line):
        self.lines.append(line)


def subject(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((12, 12, 12), bool)
    mask[1:-1, 1:-1, 1:-1] = True
    chi, field = (np.where(mask, s * rng.normal(size=mask.shape), 0).astype(np.float32) for s in (0.05, 0.02))
    return Maps(f"subject {seed}", chi, mask, field)


SOURCE, HELD_OUT = Patches(CONFIG, [subject(0)]), [subject(1)]


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Share compiled functions between runs: the loop makes them anew, the tests need them once."""
    cache: dict = {}
    make_step, make_jit = loop.compile_step, loop.compiled
    patch = pytest.MonkeyPatch()
    patch.setattr(loop, "compile_step", lambda f, d: cache.setdefault(("step", len(d)), make_step(f, d)))
    patch.setattr(loop, "compiled", lambda f: cache.setdefault("init", make_jit(f)))
    patch.setattr(loop.validation, "make_predict", _once(cache, "predict", loop.validation.make_predict))
    patch.setattr(loop, "SCALING_BATCHES", 1)
    # matplotlib is not what is tested, and takes a second a picture
    patch.setattr(journal, "three_plane", lambda volumes, path, **options: path.write_bytes(b"png"))
    patch.setattr(journal, "learning_curve", lambda rows, path, **options: path.write_bytes(b"png"))
    patch.setattr(journal, "pixels", lambda path: np.zeros((2, 2, 3), np.uint8))
    yield
    patch.undo()


def _once(cache, name, make):
    return lambda *args: cache.setdefault(name, make(*args))


def run(workdir, watcher=None, *, config=CONFIG, devices=1, **options):
    return loop.train(workdir, config, SOURCE, HELD_OUT, watcher or Silent(), devices=devices, **options)


def final_state(workdir):
    checkpoints = Checkpoints(workdir)
    try:
        like = jax.device_get(jax.jit(lambda: loop.init_state(CONFIG, build(CONFIG.model())))())
        return checkpoints.restore(like)
    finally:
        checkpoints.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(workdir), final_state(workdir)


def same_bits(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_run_leaves_what_its_folder_promises(whole):
    workdir, outcome, state = whole
    assert (outcome.step, outcome.stopped, int(state.step)) == (4, False, 4)
    rows = read_rows(workdir, 4)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {"loss", "val_psnr", "val_nrmse", "val_hfen", "val_ssim", "tkd_nrmse"} <= set(rows[-1])
    assert outcome.scores["val_nrmse"] == pytest.approx(rows[-1]["val_nrmse"], rel=1e-5)
    for name in ("learning_curve.png", "validation.png"):
        assert (workdir / name).is_file()
    page = (workdir / "training.html").read_text()
    assert "data:image/png;base64," in page and 'src="http' not in page and "steps/s" in page
    assert [path for path in (workdir / "tensorboard").iterdir() if "tfevents" in path.name]


def test_the_folder_alone_is_enough_for_inference(whole):
    workdir, _, state = whole
    variables, card = load_for_inference(workdir)
    assert {"name", "network", "scaling", "voxel_size", "b0_dir", "scores"} <= set(card)
    same_bits(variables, dict(state.ema))
    chi = predict(build(card["network"]), variables, Scaling(**card["scaling"]), HELD_OUT[0].field, HELD_OUT[0].mask)
    assert np.isfinite(chi).all()


def test_a_run_stopped_and_resumed_ends_with_the_same_bits(whole, tmp_path):
    assert run(tmp_path, until=1).stopped
    watcher = Silent()
    run(tmp_path, watcher)
    assert watcher.lines[0] == "from 1 on 1"
    same_bits(final_state(tmp_path), whole[2])
    timed = ("seconds", "steps_per_second", "input_wait")
    drop = lambda rows: [{k: v for k, v in row.items() if k not in timed} for row in rows]
    assert drop(read_rows(tmp_path, 4)) == drop(read_rows(whole[0], 4))


def test_sigterm_saves_and_ends(whole, tmp_path):
    outcome = run(tmp_path, Silent(lambda step: step == 2 and os.kill(os.getpid(), signal.SIGTERM)))
    assert outcome.stopped and outcome.step == 3
    run(tmp_path)
    same_bits(final_state(tmp_path), whole[2])


def test_a_run_killed_during_a_save_goes_on_from_the_last_whole_checkpoint(whole, tmp_path):
    run(tmp_path, until=2)
    folder = tmp_path / "checkpoints"
    # what a save that is cut off leaves: a folder under its temporary name, and half of what belongs in it
    shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp")
    (folder / "3.orbax-checkpoint-tmp" / "_CHECKPOINT_METADATA").unlink()
    watcher = Silent()
    run(tmp_path, watcher)
    assert watcher.lines[0] == "from 2 on 1"
    same_bits(final_state(tmp_path), whole[2])


@pytest.mark.slow
def test_a_run_goes_on_with_other_devices(whole, tmp_path):
    run(tmp_path, until=2)
    watcher = Silent()
    run(tmp_path, watcher, devices=4)
    assert watcher.lines[0] == "from 2 on 4"
    # losses, not parameters: Adam turns rounding of gradients that vanish into steps of the learning rate's size
    losses = [[row["loss"] for row in read_rows(folder, 4)] for folder in (tmp_path, whole[0])]
    np.testing.assert_allclose(*losses, rtol=1e-2)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(tmp_path):
    broken = dataclasses.replace(SOURCE.maps[0], field=np.full((12, 12, 12), np.inf, np.float32))
    source = Patches(CONFIG, [broken])
    run(tmp_path, until=1)
    with pytest.raises(ValueError, match="loss must stay finite, got nan by step 2"):
        loop.train(tmp_path, CONFIG, source, HELD_OUT, Silent(), devices=1)
    assert int(final_state(tmp_path).step) == 1


def test_every_validation_that_was_asked_for_is_made(whole, tmp_path):
    # no multiple of the stretch between two rows, 2
    run(tmp_path, config=dataclasses.replace(CONFIG, steps=22, validate_every=21, checkpoint_every=1000))
    assert [row["step"] for row in read_rows(tmp_path, 22) if "val_nrmse" in row] == [21, 22]


def test_a_gradient_that_is_not_finite_stops_the_run_and_is_not_saved(whole, tmp_path, monkeypatch):
    made = loop.compile_step(loop.train_step, jax.local_devices()[:1])

    def lost(state, batch):
        state, metrics = made.run(state, batch)
        return state, {**metrics, "gradient_norm": np.float32(np.nan)}

    monkeypatch.setattr(loop, "compile_step", lambda *_: made._replace(run=lost))
    with pytest.raises(ValueError, match="gradient_norm must stay finite, got nan by step 1: lower"):
        run(tmp_path)
    assert int(final_state(tmp_path).step) == 0


def test_a_validation_that_is_not_finite_is_told_as_a_loss_is(whole, tmp_path, monkeypatch):
    scores = dict.fromkeys(("val_psnr", "val_nrmse", "val_hfen", "val_ssim"), float("nan"))
    monkeypatch.setattr(loop.validation, "validate", lambda *_: (scores, None))
    with pytest.raises(ValueError, match="val_psnr must stay finite, got nan by step 2: lower"):
        run(tmp_path)
    assert int(final_state(tmp_path).step) == 1


def test_a_run_goes_on_with_its_own_data_alone(whole, tmp_path):
    run(tmp_path, until=1)
    others = Patches(CONFIG, [subject(2)])
    with pytest.raises(ValueError, match=r"data must stay those of .*\(1 maps: subject 0\), got 1 maps: subject 2"):
        loop.train(tmp_path, CONFIG, others, HELD_OUT, Silent(), devices=1)
    # a run from before the data were kept
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "data")
    assert loop.train(tmp_path, CONFIG, others, HELD_OUT, Silent(), devices=1, until=2).step == 2


def test_scaling_is_the_mean_and_deviation_over_the_masks(whole, monkeypatch):
    monkeypatch.setattr(loop, "SCALING_BATCHES", 3)
    step = loop.compile_step(loop.train_step, jax.local_devices()[:1])
    found = loop.measure_scaling(step, whole[2], SOURCE.batch)
    batches = [SOURCE.batch(i) for i in range(3)]
    field, chi = (np.concatenate([b[name][b["mask"]] for b in batches]) for name in ("field", "chi"))
    expected = Scaling(field.mean(), field.std(), chi.mean(), chi.std())
    for name in Scaling.__dataclass_fields__:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-6)


def test_maps_that_do_not_vary_are_refused(tmp_path):
    flat = dataclasses.replace(SOURCE.maps[0], chi=np.zeros((12, 12, 12), np.float32))
    with pytest.raises(ValueError, match="must vary within the masks"):
        loop.train(tmp_path, CONFIG, Patches(CONFIG, [flat]), HELD_OUT, Silent(), devices=1)


def test_a_folder_belongs_to_one_run(tmp_path, monkeypatch):
    with locked(tmp_path), pytest.raises(ValueError, match="must belong to one run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSYS, "not implemented")))
    with pytest.warns(UserWarning, match=r"can't be held \(not implemented\)"), locked(tmp_path):
        pass
