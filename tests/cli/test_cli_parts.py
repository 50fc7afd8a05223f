"""Real and imaginary parts in place of magnitude and phase."""

import json

import nibabel
import numpy as np
import pytest
from balls import B0, TE, infer, make_head, write

from qsmjax.io.nifti import load_volume


@pytest.fixture(scope="module")
def head():
    """Chi, mask, local and total field, echoes."""
    return make_head()


@pytest.mark.parametrize("layout", ["one file", "a file an echo"])
def test_real_and_imaginary_parts_make_the_map_of_magnitude_and_phase(tmp_path, head, layout):
    signal = 700 * head[4]
    # a GE, which counts phase the other way round: of parts too
    (tmp_path / "params.json").write_text(json.dumps({"TE": TE, "B0": B0, "Manufacturer": "GE"}))
    volumes = {"phase": np.angle(signal), "mag": np.abs(signal), "real": signal.real, "imag": signal.imag}
    if layout == "one file":
        files = {name: [write(tmp_path / f"{name}.nii.gz", np.moveaxis(v, 0, -1))] for name, v in volumes.items()}
    else:
        files = {n: [write(tmp_path / f"{n}{i}.nii.gz", e) for i, e in enumerate(v)] for n, v in volumes.items()}
    given = ("--params", tmp_path / "params.json", "--input", "phase", "--preset", "fast", "--no-figure", "--quiet")
    polar, parts = tmp_path / "polar.nii.gz", tmp_path / "parts.nii.gz"
    assert infer(*files["phase"], "--magnitude", *files["mag"], *given, "-o", polar) == 0
    assert infer(*files["real"], "--imaginary", *files["imag"], *given, "-o", parts) == 0
    expected = load_volume(polar).data
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(load_volume(parts).data, expected, atol=1e-4 * np.abs(expected).max())
    assert "echoes from real and imaginary parts" in json.loads((tmp_path / "parts.json").read_text())["Notes"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "localfield"], "--imaginary must go with --input phase"),
        (["--input", "phase", "--magnitude", "MAG"], "--magnitude must be left out with --imaginary"),
        (["--input", "phase", "--phase-units", "rad"], "--phase-units must go with phase, got rad with --imaginary"),
        (["--input", "phase", "-o", "IMAG"], "must not write over an input"),
        (["--input", "phase", "--te", "0.004", "0.01"], "one echo time for each of 3 echoes"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, head, words, message, capsys):
    data = {"REAL": head[4].real, "IMAG": head[4].imag, "MAG": np.abs(head[4])}
    files = {name: write(tmp_path / f"{name}.nii.gz", np.moveaxis(v, 0, -1)) for name, v in data.items()}
    words = [files.get(word, word) for word in words]
    words += [] if "--te" in words else ["--te", *TE]
    assert infer(files["REAL"], "--imaginary", files["IMAG"], "--b0", B0, *words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_parts_may_have_their_own_scale_factors_and_nan_is_found_in_both(tmp_path, head, capsys):
    real, imaginary = (np.moveaxis(part, 0, -1).copy() for part in (head[4].real, head[4].imag))
    plain = write(tmp_path / "real.nii.gz", real)
    image = nibabel.Nifti1Image(np.round(1e4 * imaginary).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(1e-4, 0)
    nibabel.save(image, tmp_path / "scaled.nii")
    given = ("--input", "phase", "--b0", B0, "--te", *TE, "--preset", "fast", "--no-figure", "--quiet")
    made = []
    for imag in (write(tmp_path / "imag.nii.gz", imaginary), tmp_path / "scaled.nii"):
        assert infer(plain, "--imaginary", imag, *given) == 0
        made.append(load_volume(tmp_path / "real_Chimap.nii.gz").data)
        told = json.loads((tmp_path / "real_Chimap.json").read_text())
        assert told["Input"] == ["real.nii.gz", imag.name] and len(set(told["InputSHA256"])) == 2
    np.testing.assert_allclose(*made, atol=0.02 * np.abs(made[0]).max())
    centre = tuple(np.argwhere(head[1]).mean(0).astype(int))
    imaginary[(*centre, 1)] = np.nan
    words = (plain, "--imaginary", write(tmp_path / "imag.nii.gz", imaginary), *given)
    words = (*words, "--mask", write(tmp_path / "mask.nii.gz", head[1]))
    assert infer(*words) == 2
    assert "real and imaginary parts must be finite inside the mask, got 1 voxels" in capsys.readouterr().err
    assert infer(*words, "--nan-to-mask") == 0


def test_parts_under_anothers_flag_are_refused_by_their_names(tmp_path, head, capsys):
    data = {"1_real": head[4].real, "sub-1_part-imag_MEGRE": head[4].imag}
    real, imaginary = (write(tmp_path / f"{name}.nii.gz", np.moveaxis(v, 0, -1)) for name, v in data.items())
    words = ("--input", "phase", "--b0", B0, "--te", *TE)
    assert infer(real, *words, "--magnitude", imaginary) == 2
    assert "1_real.nii.gz must hold phase, got the name of real ones" in capsys.readouterr().err
    rest = write(tmp_path / "sub-1_acq-realtime_part-phase.nii.gz", np.moveaxis(np.angle(head[4]), 0, -1))
    assert infer(rest, *words) == 2
    assert "a mask must be given" in capsys.readouterr().err, "an acquisition is no part"
    assert infer(imaginary, "--imaginary", real, *words) == 2
    assert "MEGRE.nii.gz must hold real parts, got the name of imag ones" in capsys.readouterr().err


def test_imaginary_parts_of_another_grid_are_refused(tmp_path, head, capsys):
    real = write(tmp_path / "real.nii.gz", np.moveaxis(head[4].real, 0, -1))
    short = write(tmp_path / "imag.nii.gz", np.moveaxis(head[4].imag[:2], 0, -1))
    assert infer(real, "--imaginary", short, "--input", "phase", "--b0", B0, "--te", *TE) == 2
    assert "imaginary part must have the 3 echoes of (28, 28, 28) that" in capsys.readouterr().err
