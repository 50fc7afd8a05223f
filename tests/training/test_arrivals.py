"""Subjects join a training as they come: in their order, as many as a step is due, or with what went wrong."""

import itertools
import threading

import numpy as np
import pytest

from qsmjax.training.arrivals import EARLIEST, Arrivals, held_out, joined, turns
from qsmjax.training.config import with_settings
from qsmjax.training.patches import Patches
from qsmjax.training.presets import preset
from qsmjax.training.sight import Seen

VOLUME, VECTOR = np.zeros((2, 2, 2), np.float32), np.ones(3, np.float32)
SCAN = Seen(np.zeros((2, 2, 2, 8), np.float16), VOLUME, VOLUME > 0, VECTOR, VECTOR)


def test_a_step_waits_for_the_subjects_that_it_is_due():
    ready = [threading.Event() for _ in range(3)]

    def coming():
        for number, event in enumerate(ready):
            event.wait(10)
            yield {f"000{number}_0_0": SCAN}

    with Arrivals(coming()) as arrivals:
        ready[0].set()
        assert [*arrivals.first(1)] == ["0000_0_0"]
        found = []
        waiting = threading.Thread(target=lambda: found.extend(arrivals.first(3)))
        waiting.start()
        ready[1].set()
        waiting.join(0.1)
        assert waiting.is_alive() and not found, "two are not three"
        ready[2].set()
        waiting.join()
        assert found == ["0000_0_0", "0001_0_0", "0002_0_0"]
        assert [*arrivals.first(1)] == ["0000_0_0"], "whoever came later is not among the first"


def test_what_ends_them_early_is_told_where_they_are_asked_for():
    def coming():
        yield {"0000_0_0": SCAN}
        raise OSError("no space left")

    with Arrivals(coming()) as arrivals:
        assert arrivals.first(1)
        with pytest.raises(OSError, match="no space left"):
            arrivals.first(2)
    with Arrivals(scans for scans in [{}]) as arrivals, pytest.raises(RuntimeError, match="2 subjects .*, got 1"):
        arrivals.first(2)


def test_no_more_are_drawn_than_are_wanted():
    drawn, closed = [], threading.Event()

    def coming():
        try:
            for number in range(1000):
                drawn.append(number)
                yield {}
                arrivals_asked.wait(10)
        finally:
            closed.set()

    arrivals_asked = threading.Event()
    with Arrivals(coming()) as arrivals:
        arrivals.first(1)
        threading.Timer(0.05, arrivals_asked.set).start()
    assert closed.is_set() and arrivals.ended and drawn == [0, 1], "the one that was being made, and no more"


def test_who_gives_up_waits_no_longer():
    never, given_up = threading.Event(), threading.Event()

    def coming():
        never.wait(10)
        yield {}

    with Arrivals(coming()) as arrivals:
        threading.Timer(0.05, given_up.set).start()
        with pytest.raises(RuntimeError, match="1 subjects must come, got 0"):
            arrivals.first(1, given_up.is_set)
        never.set()


def test_the_last_subjects_are_held_out_and_come_first():
    config = with_settings(preset("learned"), ["subjects=40"])
    assert held_out(config) == 2 and turns(config) == [38, 39, *range(38)]
    assert turns(with_settings(config, ["subjects=2"])) == [0, 1]


def test_patches_are_cut_of_those_that_have_joined_and_of_none_that_is_held_out():
    config = with_settings(preset("learned"), ["subjects=6", "joining=0.5", "steps=100", "batch=2", "patch=8"])
    scans = {n: SCAN._replace(mask=np.ones((8, 8, 8), bool), chi=np.full((8, 8, 8), n)) for n in range(6)}
    scans = {n: scan._replace(features=np.zeros((8, 8, 8, 8), np.float16)) for n, scan in scans.items()}
    coming = ({f"{n:04d}_0_0": scans[n], f"{n:04d}_1_0": scans[n]} for n in turns(config))
    with Arrivals(coming) as arrivals:
        patches = Patches(config, arrivals)
        assert sorted(patches.unseen()) == [f"{n:04d}_{part}_0" for n in (4, 5) for part in (0, 1)]
        of = lambda step: [[int(scan.seen.chi[0, 0, 0]) for scan in kind] for kind in patches.own(step)]
        assert of(0) == [[0], [0]] and of(25) == [[0, 1, 2]] * 2 and of(99) == of(50) == [[0, 1, 2, 3]] * 2
        drawn = [patches.batch(step)["chi"] for step in range(50, 100)]
        assert set(np.unique(drawn)) == {0, 1, 2, 3}
        np.testing.assert_array_equal(drawn[0], patches.batch(50)["chi"])


@pytest.mark.parametrize("subjects", [1, 7, 500])
def test_subjects_join_evenly(subjects):
    counts = [joined(subjects, step, 1000, 0.5) for step in range(1000)]
    assert counts[0] == -(-subjects * EARLIEST // 1) and set(counts[500:]) == {subjects}
    assert all(0 <= b - a <= 1 for a, b in itertools.pairwise(counts))
    assert abs(counts[250] - subjects * (1 + EARLIEST) / 2) <= 1
    assert {joined(subjects, step, 1000, 0) for step in (0, 999)} == {subjects}
