"""Background that is left in a local field: the learned inversion finds it, takes it out and says so."""

import json
from typing import NamedTuple

import jax
import numpy as np
import pytest

import qsmjax
from qsmjax.cli.main import run_command
from qsmjax.inference.learned import FILTERED
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry_from_affine

SHAPE = (30, 28, 24)
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])
AT = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
RADIUS = np.linalg.norm(AT / np.asarray([12, 11.5, 10.5])[:, None, None, None], axis=0)
MASK = RADIUS < 1
BALLS = (((5, 2, 0), 4, 0.1), ((-5, -3, 2), 3, -0.08), ((0, 5, -4), 3, 0.12), ((2, -5, -3), 2.5, 0.15))
NOISE = 0.05
"""Of the tissue's field."""


class Head(NamedTuple):
    """Balls in an ellipsoid as large as a head."""

    chi: np.ndarray
    local: FieldMap
    outside: np.ndarray

    def holding(self, part: float, affine: np.ndarray = AFFINE) -> FieldMap:
        """Return the local field with background of a part of its strength left in it."""
        field = np.asarray(self.local.field) + part * self.outside
        return field_map(field, MASK, geometry_from_affine(affine, SHAPE))

    def error(self, chi) -> float:
        """Return the deviation of a map from the truth, over the truth's."""
        return float((np.asarray(chi) - self.chi)[MASK].std() / self.chi[MASK].std())


@pytest.fixture(scope="module")
def head():
    """A head, and the field of a shell beside it."""
    grid, chi = geometry_from_affine(AFFINE, SHAPE), np.zeros(SHAPE)
    for centre, radius, value in BALLS:
        chi[np.linalg.norm(AT - np.asarray(centre)[:, None, None, None], axis=0) < radius] = value
    tissue = np.asarray(forward_field(chi, grid))
    shell = (RADIUS > 1.15) & (RADIUS < 1.25) & (AT[0] > 4)
    outside = np.asarray(forward_field(shell.astype(np.float32), grid))
    outside = (outside - outside[MASK].mean()) * tissue[MASK].std() / outside[MASK].std() * MASK
    noise = NOISE * tissue[MASK].std() * np.random.default_rng(0).normal(size=SHAPE)
    return Head(chi, field_map(tissue + noise, MASK, grid), outside)


def test_what_is_left_of_a_background_is_found_and_taken_out(head):
    scan = head.holding(0.5)
    made, kept = (qsmjax.load("learned")(scan, residue=residue) for residue in (True, False))
    assert kept.local is None and head.error(made.chi) < 0.5 * head.error(kept.chi)
    # a constant field is chi's as much as the background's
    off = np.asarray(scan.field - made.local.field - 0.5 * head.outside)[MASK]
    assert off.std() < 0.35 * 0.5 * head.outside[MASK].std()
    assert not np.asarray(made.local.field)[~MASK].any()


def test_as_much_background_as_tissue_is_found_too(head):
    made = qsmjax.load("learned")(head.holding(1.0))
    assert made.local is not None and head.error(made.chi) < 0.3
    rest = qsmjax.load("learned_total")(made.local)
    np.testing.assert_allclose(made.std, FILTERED * rest.std, rtol=1e-5, err_msg="what a filter took is not foretold")


def test_a_field_without_background_is_inverted_as_it_is(head):
    made = qsmjax.load("learned")(head.local)
    assert made.local is None and head.error(made.chi) < 0.1
    np.testing.assert_array_equal(made.chi, qsmjax.load("learned")(head.local, residue=False).chi)


def test_what_is_smaller_than_a_head_is_not_judged(head):
    small = head.holding(0.5, np.diag([1.0, 1.0, 1.0, 1.0]))
    assert qsmjax.load("learned")(small).local is None


@pytest.mark.slow
def test_a_gradient_goes_by_what_is_found_and_where_the_field_is_traced_none_is_looked_for(head):
    scan = head.holding(0.5)
    seen = []

    def total(field):
        made = qsmjax.load("learned")(field_map(field, MASK, scan.geometry))
        seen.append(made.local is not None)
        return made.chi.sum()

    assert np.isfinite(np.asarray(jax.grad(total)(scan.field))).all()
    jax.eval_shape(total, scan.field)
    assert seen == [True, False]


def test_the_command_line_tells_what_was_taken_out_and_what_made_the_map(head, tmp_path, capsys):
    field = np.asarray(head.holding(0.5).field)
    # the same scan as it lies, and stored along other axes
    for name, axes in {"plain": (0, 1, 2), "turned": (2, 0, 1)}.items():
        stored = np.ascontiguousarray(field.transpose(axes)[::-1])
        affine = AFFINE[:, [*axes, 3]] @ np.diag([-1, 1, 1, 1])
        affine[:3, 3] -= affine[:3, 0] * (stored.shape[0] - 1)
        path = tmp_path / f"{name}.nii.gz"
        save_volume(path, stored, new_volume(stored, affine))
        assert run_command("infer", [str(path), "--no-figure", "--save-stages"]) == 0
        assert "background field was left in the local field" in capsys.readouterr().err
        local = load_volume(tmp_path / f"{name}_desc-local_fieldmap.nii.gz").data[::-1].transpose(np.argsort(axes))
        assert (local - np.asarray(head.local.field))[MASK].std() < 0.5 * (local - field)[MASK].std()
    sidecar = json.loads((tmp_path / "plain_Chimap.json").read_text())
    assert [(slot, stage["Method"]) for slot, stage in sidecar["Stages"].items()] == [
        ("residue", "tfi"),
        ("inversion", "learned_total"),
    ]
    assert sidecar["Method"] == "learned_total" and "background field was left" in sidecar["Warnings"][0]
    assert "Background that was found in the local field was removed by tfi" in sidecar["MethodsParagraph"]
