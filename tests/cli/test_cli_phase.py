"""From phase files to a map: echoes, mask, background and inversion in one command, each stage told."""

import json

import numpy as np
import pytest
from balls import B0, SHAPE, TE, infer, make_head, write

from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.physics.units import radians_per_ppm

JOINT = ("--set", "background.method=joint")
"""Spheres take too much off so small a head."""


@pytest.fixture(scope="module")
def head():
    """Chi, mask, local and total field, echoes."""
    return make_head()


def error_of(found, chi, mask):
    truth = chi - chi[mask].mean()
    found = found - found[mask].mean()
    return np.linalg.norm((found - truth)[mask]) / np.linalg.norm(truth[mask])


def test_total_field_to_map(tmp_path, head):
    chi, mask, _, total, _ = head
    field = write(tmp_path / "total.nii.gz", total)
    assert infer(field, "--input", "totalfield", *JOINT, "--save-stages", "--no-figure", "--quiet") == 0
    kept = load_volume(tmp_path / "total_desc-qsm_mask.nii.gz").data > 0
    removed = load_volume(tmp_path / "total_desc-removed_mask.nii.gz").data > 0
    np.testing.assert_array_equal(kept | removed, mask)
    assert kept.sum() > 0.4 * mask.sum() and not (kept & removed).any()
    assert error_of(load_volume(tmp_path / "total_Chimap.nii.gz").data, chi, kept) < 0.35
    assert (tmp_path / "total_desc-local_fieldmap.nii.gz").exists()
    told = json.loads((tmp_path / "total_Chimap.json").read_text())
    assert list(told["Stages"]) == ["background", "inversion"] and told["InputKind"] == "totalfield"
    assert "background field was removed by" in told["MethodsParagraph"]


@pytest.mark.parametrize("layout", ["one file", "a file an echo"])
def test_phase_to_map(tmp_path, head, layout, capsys):
    chi, _, _, _, signal = head
    if layout == "a file an echo":
        # as 3-D scans of GE have it
        signal = signal * (-1) ** np.arange(SHAPE[2])
    volumes = {"phase": np.angle(signal), "magnitude": np.abs(signal)}
    if layout == "one file":
        files = {name: [write(tmp_path / f"{name}.nii.gz", np.moveaxis(v, 0, -1))] for name, v in volumes.items()}
    else:
        files = {n: [write(tmp_path / f"{n}{i}.nii.gz", e) for i, e in enumerate(v)] for n, v in volumes.items()}
    (tmp_path / "params.json").write_text(json.dumps({"TE": TE, "B0": B0}))
    words = (
        *files["phase"],
        "--input",
        "phase",
        "--magnitude",
        *files["magnitude"],
        *JOINT,
        "--no-figure",
        "--save-stages",
    )
    assert infer(*words, "--params", tmp_path / "params.json", "-o", tmp_path / "chi.nii.gz") == 0
    said = capsys.readouterr().out
    assert "phase scaled as radians" in said
    assert ("every other slice along z was negated" in said) == (layout == "a file an echo")
    kept = load_volume(tmp_path / "chi_desc-qsm_mask.nii.gz").data > 0
    assert error_of(load_volume(tmp_path / "chi.nii.gz").data, chi, kept) < 0.4
    noise = load_volume(tmp_path / "chi_desc-noise_fieldmap.nii.gz").data[kept]
    assert 0 < np.median(noise) < 0.01
    told = json.loads((tmp_path / "chi.json").read_text())
    assert list(told["Stages"]) == ["mask", "field", "background", "inversion"]
    assert told["EchoTime"] == list(TE) and told["MagneticFieldStrength"] == B0


def test_echoes_along_two_axes_are_refused(tmp_path, head, capsys):
    five = np.moveaxis(np.angle(head[4]), 0, -1)[..., None].repeat(2, -1)
    words = ("--input", "phase", "--b0", B0, "--te", *TE, "--mask", write(tmp_path / "mask.nii.gz", head[1]))
    assert infer(write(tmp_path / "five.nii.gz", five), *words) == 2
    assert "must hold one volume" in capsys.readouterr().err


def test_a_rim_that_is_asked_off_is_no_bad_fit_and_stands_beside_the_map(tmp_path, head, capsys):
    phase = write(tmp_path / "phase.nii.gz", np.moveaxis(np.angle(head[4]), 0, -1))
    mask = write(tmp_path / "mask.nii.gz", head[1])
    words = (
        phase,
        "--input",
        "phase",
        "--b0",
        B0,
        "--te",
        *TE,
        "--mask",
        mask,
        "--set",
        "field.erode=2",
        "--no-figure",
    )
    assert infer(*words, "--method", "tfi", "--set", "inversion.max_iterations=2") == 0
    said = capsys.readouterr()
    assert "voxels of the mask's rim were taken out, as asked" in said.out and "does not explain" not in said.err
    kept, removed = (load_volume(tmp_path / f"phase_desc-{n}_mask.nii.gz").data > 0 for n in ("qsm", "removed"))
    np.testing.assert_array_equal(kept | removed, head[1])
    assert removed.sum() > 0.2 * head[1].sum()
    told = json.loads((tmp_path / "phase_Chimap.json").read_text())
    assert [each["Name"] for each in told["InputsBeside"]["mask"]] == ["mask.nii.gz"]
    assert "10.1364/AO.41.007437" in told["Stages"]["field"]["References"]
    chi = load_volume(tmp_path / "phase_Chimap.nii.gz").data[kept]
    np.testing.assert_allclose([told["MaskMean"], told["MaskStd"]], [chi.mean(), chi.std()], atol=1e-6)
    assert f"± {told['MaskStd']:.2g} ppm" in told["MethodsParagraph"]


def test_sidecars_beside_the_phase_are_read(tmp_path, head):
    signal = head[4]
    for i, te in enumerate(TE):
        for name, part in (("phase", np.angle(signal[i])), ("mag", np.abs(signal[i]))):
            write(tmp_path / f"sub-1_echo-{i}_part-{name}_MEGRE.nii.gz", part)
        known = {"EchoTime": te, "ImagingFrequency": 123.2, "MagneticFieldStrength": 3, "RepetitionTime": 0.03}
        text = json.dumps(known | {"FlipAngle": 15, "MRAcquisitionType": "3D", "Manufacturer": "Siemens", "Other": 1})
        (tmp_path / f"sub-1_echo-{i}_part-phase_MEGRE.json").write_text(text)
    phase, magnitude = (sorted(tmp_path.glob(f"*part-{name}*.nii.gz")) for name in ("phase", "mag"))
    out = tmp_path / "chi.nii.gz"
    words = ("--input", "phase", "--magnitude", *magnitude, "--preset", "fast", "--no-figure", "--quiet", "-o", out)
    assert infer(*phase, *words) == 0
    told = json.loads((tmp_path / "chi.json").read_text())
    np.testing.assert_allclose(told["MagneticFieldStrength"], 123.2 / 42.577478518, rtol=1e-6)
    assert told["Stages"]["background"]["Method"] == "vsharp" and told["Method"] == "tkd"
    assert told["Acquisition"]["FlipAngle"] == 15 and "Other" not in told["Acquisition"]
    assert "28 x 28 x 28 voxels of 1 x 1 x 1 mm" in told["MethodsParagraph"]
    assert "a repetition time of 0.03 s, a flip angle of 15 degrees" in told["MethodsParagraph"]
    assert "123.2 MHz, 3D, Siemens, and B0 along" in told["MethodsParagraph"]


@pytest.fixture
def echoes(tmp_path, head):
    """The words for twelve echoes in a file each, in the shell's order, and the map of them in their own."""
    _, mask, _, total, _ = head
    te = [0.002 * (i + 1) for i in range(12)]
    phase = [np.angle(np.exp(1j * (total * float(radians_per_ppm(B0, t)) + 0.3))) for t in te]
    files = sorted(write(tmp_path / f"phase_{i + 1}.nii.gz", part) for i, part in enumerate(phase))
    stack = write(tmp_path / "stack.nii.gz", np.moveaxis(np.stack(phase), 0, -1))
    given = ("--input", "phase", "--b0", B0, "--mask", write(tmp_path / "mask.nii.gz", mask), "--no-figure", *JOINT)
    given = (*given, "--method", "tkd", "-o", tmp_path / "chi.nii.gz")
    assert infer(stack, *given, "--quiet", "--te", *te) == 0
    return files, given, te, load_volume(tmp_path / "chi.nii.gz").data


def test_echo_ten_follows_echo_nine_however_the_shell_lists_them(tmp_path, echoes, capsys):
    files, given, te, expected = echoes
    assert infer(*files, *given, "--te", *te) == 0
    assert "in the order of the numbers in their files' names" in capsys.readouterr().out
    np.testing.assert_allclose(load_volume(tmp_path / "chi.nii.gz").data, expected, atol=1e-6)


def test_times_that_the_sidecars_contradict_are_refused_and_their_own_are_put_in_order(tmp_path, echoes, capsys):
    files, given, te, expected = echoes
    for i, t in enumerate(te):
        (tmp_path / f"phase_{i + 1}.json").write_text(json.dumps({"EchoTime": t}))
    assert infer(*files[::-1], *given, "--te", *te) == 2
    assert "--te must be the EchoTime beside the phase files" in capsys.readouterr().err
    assert infer(*files[::-1], *given, "--quiet") == 0
    np.testing.assert_allclose(load_volume(tmp_path / "chi.nii.gz").data, expected, atol=1e-6)


def test_magnitudes_of_other_echoes_than_their_places_are_refused(tmp_path, head, capsys):
    signal = head[4]
    for i, te in enumerate(TE):
        for name, part in (("phase", np.angle(signal[i])), ("mag", np.abs(signal[i]))):
            write(tmp_path / f"{name}_{i}.nii.gz", part)
            (tmp_path / f"{name}_{i}.json").write_text(json.dumps({"EchoTime": te, "MagneticFieldStrength": 3}))
    phases, magnitudes = (sorted(tmp_path.glob(f"{name}_*.nii.gz")) for name in ("phase", "mag"))
    names = [magnitudes[i] for i in (1, 0, 2)]
    assert infer(*phases, "--input", "phase", "--magnitude", *names) == 2
    said = capsys.readouterr().err
    assert "--magnitude must be of FIELD's echoes, in their order, got EchoTime 0.01, 0.004, 0.018" in said
    assert said.count("\n") == 1
    assert infer(phases[0], "--input", "phase", "--magnitude", magnitudes[1]) == 2
    assert "got EchoTime 0.01 beside them where FIELD has 0.004" in capsys.readouterr().err


def test_a_fit_that_leaves_much_of_the_mask_warns(tmp_path, echoes, capsys):
    _, given, te, expected = echoes
    # read to and fro: every other echo has the readout's own phase
    ramp = 0.12 * (np.arange(SHAPE[0]) - 14)[:, None, None, None] * (np.arange(12) % 2)
    write(tmp_path / "stack.nii.gz", np.angle(np.exp(1j * (load_volume(tmp_path / "stack.nii.gz").data + ramp))))
    assert infer(tmp_path / "stack.nii.gz", *given, "--te", *te) == 0
    assert "of the mask was taken out, since the fit does not explain its echoes" in capsys.readouterr().err
    assert "field.bipolar=true" in json.loads((tmp_path / "chi.json").read_text())["Warnings"][0]
    assert infer(tmp_path / "stack.nii.gz", *given, "--te", *te, "--set", "field.bipolar=true") == 0
    assert "taken out" not in capsys.readouterr().err
    assert np.abs(load_volume(tmp_path / "chi.nii.gz").data - expected).max() < 0.01


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"MagneticFieldStrength": 3, "ImagingFrequency": 123.2e6}, "ImagingFrequency must be in MHz"),
        ({"MagneticFieldStrength": 30000}, "field strength must be in tesla"),
        ({"MagneticFieldStrength": 3, "EchoTime": [4, 10, 18]}, "echo times must be in seconds"),
    ],
)
def test_sidecars_that_cannot_be_are_refused(tmp_path, head, told, message, capsys):
    phase = write(tmp_path / "phase.nii.gz", np.moveaxis(np.angle(head[4]), 0, -1))
    (tmp_path / "phase.json").write_text(json.dumps({"EchoTime": TE} | told))
    mask = write(tmp_path / "mask.nii.gz", head[1])
    assert infer(phase, "--input", "phase", "--mask", mask) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    # nor is a file beside the phase written over
    assert infer(phase, "--input", "phase", "--mask", mask, "-o", tmp_path / "phase.nii") == 2
    assert "must not write over an input" in capsys.readouterr().err


def test_a_magnitude_that_lies_elsewhere_is_refused(tmp_path, head, capsys):
    phase = write(tmp_path / "phase.nii.gz", np.moveaxis(np.angle(head[4]), 0, -1))
    data = np.moveaxis(np.abs(head[4]), 0, -1)
    save_volume(tmp_path / "mag.nii.gz", data, new_volume(data, np.diag([-1.0, 1, 1, 1])))
    words = ("--input", "phase", "--b0", B0, "--te", *TE, "--magnitude", tmp_path / "mag.nii.gz")
    assert infer(phase, *words) == 2
    assert "magnitude must lie where the field lies" in capsys.readouterr().err


def test_nan_in_phase_is_taken_out_where_it_may_be(tmp_path, head, capsys):
    _, mask, _, _, signal = head
    data, inner = np.moveaxis(np.angle(signal), 0, -1), tuple(np.argwhere(mask).mean(0).astype(int))
    data[0, 0, 0, 1] = data[(*inner, 0)] = np.nan
    kept = write(tmp_path / "mask.nii.gz", mask)
    words = (write(tmp_path / "phase.nii.gz", data), "--input", "phase", "--b0", B0, "--te", *TE, "--mask", kept)
    words = (*words, "--preset", "fast", "--no-figure", "--quiet")
    assert infer(*words) == 2 and "got 1 voxels of NaN" in capsys.readouterr().err
    assert infer(*words, "--nan-to-mask") == 0
    notes = json.loads((tmp_path / "phase_Chimap.json").read_text())["Notes"]
    assert sum(note.startswith("1 voxels of NaN or ") for note in notes) == 2
    assert load_volume(tmp_path / "phase_desc-qsm_mask.nii.gz").data[inner] == 0


def test_a_noise_that_is_given_and_the_makers_sign_are_heeded(tmp_path, head):
    phase = write(tmp_path / "phase.nii.gz", np.moveaxis(np.angle(head[4]), 0, -1))
    mask = write(tmp_path / "mask.nii.gz", head[1])
    words = (phase, "--input", "phase", "--mask", mask, "--preset", "fast", "--no-figure", "--quiet", "--save-stages")
    fields = []
    for maker in ("Siemens", "GE MEDICAL SYSTEMS"):
        (tmp_path / "params.json").write_text(json.dumps({"TE": TE, "B0": B0, "Manufacturer": maker}))
        assert infer(*words, "--params", tmp_path / "params.json", "--noise", 0.004) == 0
        fields.append(load_volume(tmp_path / "phase_desc-total_fieldmap.nii.gz").data)
    np.testing.assert_allclose(fields[1], -fields[0], atol=1e-5)
    noise = load_volume(tmp_path / "phase_desc-noise_fieldmap.nii.gz").data
    np.testing.assert_allclose(noise[noise > 0], 0.004, rtol=1e-6)


@pytest.mark.parametrize(
    ("scale", "words", "message"),
    [
        (0.001, [], "--phase-units"),
        (1, ["--te", *TE, "--noise", "0"], "0 must be a standard deviation above zero inside the mask"),
        (1, ["--te", "0.004", "0.010"], "one echo time for each of 3 echoes, got 2"),
        (1, ["--te", "0.010", "0.004", "0.018"], "te"),
        (1, [], "a mask must be given with --mask where there is no magnitude"),
    ],
)
def test_what_cannot_be_gets_one_line(tmp_path, head, scale, words, message, capsys):
    phase = write(tmp_path / "phase.nii.gz", np.moveaxis(np.angle(head[4]) * scale, 0, -1))
    given = words or ["--te", *TE]
    mask = [] if message.startswith("a mask") else ["--mask", write(tmp_path / "mask.nii.gz", head[1])]
    assert infer(phase, "--input", "phase", "--b0", B0, *given, *mask) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "phase_Chimap.nii.gz").exists()
