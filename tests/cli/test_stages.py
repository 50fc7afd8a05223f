"""Which method stands where: presets, what overrides them, and the consensus' numbers."""

import argparse
import io
import sys

import numpy as np
import pytest

from qsmjax.cli import infer
from qsmjax.cli.errors import UserError
from qsmjax.cli.progress import iterations
from qsmjax.cli.stages import choose_stages, made_by, with_residue_removed
from qsmjax.inversion import nltv
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry


def stages(*words):
    parser = argparse.ArgumentParser()
    infer.add_arguments(parser)
    return choose_stages(parser.parse_args(["x.nii", *words]))


def test_the_consensus_preset_has_the_published_numbers():
    chosen = stages("--input", "phase", "--preset", "consensus2024")
    assert list(chosen) == ["mask", "field", "background", "inversion"]
    assert chosen["field"].parameters["residual"] == 0.3 and chosen["field"].parameters["erode"] == 1
    assert chosen["background"].options["radii"] == tuple(float(r) for r in range(12, 0, -1))
    assert chosen["inversion"].name == "nltv"
    assert chosen["inversion"].options == {"toolbox_alpha": 5e-4, "max_iterations": 400}


@pytest.mark.parametrize(
    ("words", "background", "inversion"),
    [
        (("--set", "background.method=pdf"), ("pdf", {}), "nltv"),
        (("--method", "tkd"), ("vsharp", None), "tkd"),
        (("--set", "method=tv"), ("vsharp", None), "tv"),
        (("--set", "background.threshold=0.1"), ("vsharp", None), "nltv"),
    ],
)
def test_another_method_leaves_the_presets_options_behind(words, background, inversion):
    chosen = stages("--input", "totalfield", "--preset", "consensus2024", *words)
    name, options = background
    assert chosen["background"].name == name and (options is None or chosen["background"].options == options)
    assert chosen["inversion"].name == inversion
    assert bool(chosen["inversion"].options) == (inversion == "nltv")


@pytest.mark.parametrize(
    ("words", "inversion"),
    [
        ((), "learned"),
        (("--input", "totalfield"), "learned_total"),
        (("--input", "phase", "--method", "learned"), "learned_total"),
        (("--input", "totalfield", "--set", "background.method=vsharp"), "learned"),
        (("--input", "totalfield", "--method", "tv"), "tv"),
    ],
)
def test_the_learned_inversion_has_weights_for_what_the_default_removal_leaves(words, inversion):
    assert stages(*words)["inversion"].name == inversion


def test_what_a_residue_was_taken_out_by_stands_between_and_options_stay():
    words = ("--input", "totalfield", "--set", "background.method=vsharp", "--set", "tile=48", "--set", "residue=true")
    chosen = with_residue_removed(stages(*words))
    assert [(slot, stage.name) for slot, stage in chosen.items()] == [
        ("background", "vsharp"),
        ("residue", "tfi"),
        ("inversion", "learned_total"),
    ]
    assert chosen["inversion"].options == {"tile": 48}
    told = {"Method": "learned_total", "Stages": dict.fromkeys(chosen)}
    learned = stages(*words)["inversion"]
    assert made_by(learned, told) and made_by(learned, {"Method": "learned"})
    assert not made_by(learned, {"Method": "learned_total", "Stages": {}}) and not made_by(learned, {"Method": "tv"})


def test_whether_to_look_for_a_residue_is_no_question_of_a_total_field():
    assert stages("--input", "totalfield", "--set", "residue=false")["inversion"].options == {}
    assert stages("--set", "residue=false")["inversion"].options == {"residue": False}


def test_k_space_goes_through_every_stage_and_fields_through_none_before_theirs():
    chain = ["recon", "mask", "field", "background", "inversion"]
    assert list(stages("--input", "kspace", "--set", "recon.regularisation=1e-2")) == chain
    assert list(stages("--input", "phase", "--coils", "--mask", "m.nii")) == ["coils", *chain[2:]]
    assert list(stages("--input", "totalfield")) == chain[3:] and list(stages()) == chain[4:]
    with pytest.raises(UserError, match="must name a stage among mask, field, background, inversion"):
        stages("--input", "phase", "--set", "recon.regularisation=1e-2")


def test_the_toolboxs_alpha_is_a_weight_in_radians_and_voxels():
    grid = geometry((12, 12, 12), (2.0, 2.0, 2.0), (0, 0, 1))
    chi = np.zeros(grid.shape, np.float32)
    chi[5:7, 5:7, 5:7] = 0.1
    local = field_map(forward_field(chi, grid), np.ones(grid.shape, bool), grid, radians_per_ppm=20.0)
    one, other = nltv(local, toolbox_alpha=4e-3, max_iterations=5), nltv(local, weight=4e-4, max_iterations=5)
    assert float(one.weight) == pytest.approx(4e-4, rel=1e-4)
    np.testing.assert_allclose(one.chi, other.chi, atol=1e-6)
    with pytest.raises(ValueError, match="must not both be given"):
        nltv(local, toolbox_alpha=1e-3, weight=1e-3)


def test_progress_names_the_stage_and_is_drawn_for_those_who_look_alone(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    remove = stages("--input", "totalfield")["background"].run
    with iterations(remove, {}, quiet=False, stage="background") as added:
        assert added == {}
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    with iterations(remove, {}, quiet=False, stage="background") as added:
        added["report"](1, 0.5)
    assert "background, iteration" in terminal.getvalue()
