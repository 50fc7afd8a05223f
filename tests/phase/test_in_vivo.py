"""A piece of a real scan: three echoes in the proportion 2:4:6, stored as radians under a wrong scale factor.

It is test data of ROMEO (Dymerska et al., Magn. Reson. Med. 85:2294, 2021, doi:10.1002/mrm.28563), under the MIT
licence, unchanged. Field strength and echo times are not recorded; those here are a guess.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from qsmjax.cli.main import run_command
from qsmjax.io.nifti import load_volume
from qsmjax.phase.echoes import echoes_from_phase, fit_echoes
from qsmjax.phase.mask import magnitude_mask
from qsmjax.phase.scaling import phase_rule
from qsmjax.phase.unwrap import unwrap_echoes

FOLDER = Path(__file__).parent / "invivo"
TE, B0 = (0.004, 0.008, 0.012), 7.0


@pytest.fixture(scope="module")
def scan():
    """Phase [rad] and magnitude, echo x y z, and the mask."""
    volumes = [load_volume(FOLDER / f"{name}.nii.gz") for name in ("phase", "magnitude")]
    phase, magnitude = (np.moveaxis(volume.data, -1, 0) for volume in volumes)
    told = {"scl_slope": volumes[0].slope, "stored_as_float": volumes[0].stored_as_float, "units": "stored-rad"}
    radians = np.asarray(phase_rule(phase, **told).radians(phase))
    return radians, magnitude, np.asarray(magnitude_mask(magnitude))


def test_radians_under_a_wrong_factor_are_refused_and_taken_once_told(tmp_path, capsys):
    files = [str(FOLDER / "phase.nii.gz"), "--magnitude", str(FOLDER / "magnitude.nii.gz")]
    words = [*files, "--input", "phase", "--b0", "7", "--te", *map(str, TE), "--preset", "fast", "--no-figure"]
    words += ["-o", str(tmp_path / "map.nii.gz")]
    assert run_command("infer", words) == 2
    said = capsys.readouterr().err
    assert "the header's scale factor is 0.00116959" in said and "stored-rad ignores the factor" in said
    assert run_command("infer", [*words, "--phase-units", "stored-rad", "--save-stages"]) == 0
    assert "phase scaled as radians before the header's scale factor" in capsys.readouterr().out
    assert json.loads((tmp_path / "map.json").read_text())["MagneticFieldStrength"] == B0
    field, mask = (load_volume(tmp_path / f"map_desc-{name}.nii.gz").data for name in ("total_fieldmap", "qsm_mask"))
    # a piece of a head: most of it within a tenth of a ppm of its median
    assert 0.001 < np.median(np.abs(field[mask > 0] - np.median(field[mask > 0]))) < 0.1


def test_turns_are_found_with_no_jump_left(scan):
    phase, magnitude, mask = scan
    assert 0.3 < mask.mean() < 0.6
    unwrapped = np.asarray(unwrap_echoes(phase, TE, mask, magnitude=magnitude))
    turns = ((unwrapped - phase) / (2 * np.pi))[:, mask]
    assert np.abs(turns - np.round(turns)).max() < 1e-5 and np.abs(turns).max() > 0.5
    for axis in (1, 2, 3):
        both = np.minimum(np.take(mask, range(1, mask.shape[axis - 1]), axis - 1),
                          np.take(mask, range(mask.shape[axis - 1] - 1), axis - 1))  # fmt: skip
        step = np.abs(np.diff(unwrapped, axis=axis))[:, both]
        wrapped = np.abs(np.diff(phase, axis=axis))[:, both]
        assert (step > np.pi).mean() < 1e-4 < (wrapped > np.pi).mean()


def test_the_fit_explains_it_and_its_noise_is_that_of_neighbours(scan):
    phase, magnitude, mask = scan
    fit = fit_echoes(echoes_from_phase(phase, magnitude), TE, B0, mask)
    residual = np.asarray(fit.relative_residual)[mask]
    assert np.median(residual) < 0.05 and (residual > 0.3).mean() < 1e-3
    # second differences along x hold noise and what tissue bends: told within them, and not far below
    field = np.asarray(fit.field)
    bend = (field[1:-1] - (field[2:] + field[:-2]) / 2)[(mask[1:-1] & mask[2:] & mask[:-2])]
    seen = np.median(np.abs(bend)) * 1.4826 / np.sqrt(1.5)
    assert 0.4 * seen < np.median(np.asarray(fit.noise)[mask]) < 1.1 * seen
