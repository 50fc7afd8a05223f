"""Wrong units, sign, filtered phase and left background are told on a head; a right input and phantoms are not."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from qsmjax.cli.main import run_command
from qsmjax.evaluation.guards import input_warnings
from qsmjax.io.nifti import load_volume, save_volume
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry, geometry_from_affine

EXAMPLE = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def head():
    """The example at half its voxels: field, map, mask, grid."""
    volume = load_volume(EXAMPLE / "field.nii.gz")
    affine = volume.affine.copy()
    affine[:3, :3] *= 2
    field, chi = volume.data[::2, ::2, ::2], load_volume(EXAMPLE / "chi_truth.nii.gz").data[::2, ::2, ::2]
    return field, chi, field != 0, geometry_from_affine(affine, field.shape)


def warned(field, chi, mask, grid):
    return input_warnings(field_map(field, mask, grid), chi)


def test_a_right_input_is_not_warned_about(head):
    assert warned(*head) == []


@pytest.mark.parametrize(
    ("factor", "word"), [(2 * np.pi, "units"), (1 / (2 * np.pi), "units"), (-1, "sign"), (-2 * np.pi, "sign")]
)
def test_units_and_sign_are_told(head, factor, word):
    field, chi, mask, grid = head
    assert any(word in line for line in warned(factor * field, factor * chi, mask, grid))


def test_filtered_phase_is_told(head):
    field, chi, mask, grid = head
    sigma = 15 / 2.355 / np.asarray(grid.voxel_size)
    smooth = gaussian_filter(field * mask, sigma) / np.maximum(gaussian_filter(mask * 1.0, sigma), 1e-3)
    (line,) = warned(np.where(mask, field - smooth, 0), chi, mask, grid)
    assert "high-pass filtered" in line and "export unfiltered phase" in line


def test_left_background_is_told(head):
    field, chi, mask, grid = head
    z = np.linspace(-1, 1, field.shape[2])
    (line,) = warned(np.where(mask, field + 0.1 * z, 0), chi, mask, grid)
    assert "background field is left" in line and "--input totalfield" in line
    total = field_map(np.where(mask, field + 0.1 * z, 0), mask, grid)
    assert input_warnings(total, chi, total=True) == [], "of a one-step map its own field is judged"
    assert any("sign" in line for line in input_warnings(total, -chi, total=True))


@pytest.mark.parametrize("inside", [np.zeros, np.ones])
def test_less_than_a_head_is_not_judged(inside):
    shape = (8, 8, 8)
    assert warned(jnp.zeros(shape), jnp.zeros(shape), inside(shape, bool), geometry(shape)) == []


def test_the_terminal_and_the_sidecar_say_it(head, tmp_path, capsys):
    volume = load_volume(EXAMPLE / "field.nii.gz")
    save_volume(tmp_path / "turned.nii.gz", -volume.data, volume)
    words = [str(tmp_path / "turned.nii.gz"), "--method", "tkd", "--no-figure", "--quiet"]
    assert run_command("infer", words) == 0
    told = json.loads((tmp_path / "turned_Chimap.json").read_text())["Warnings"]
    said = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "sign may be turned" in told[0] and said == [f"warning: {told[0]}"]
