"""Images of single coils, combined by their phase offsets (MCPC-3D-S) on the way to a map; a mask found by choice."""

import json

import numpy as np
import pytest
from balls import B0, SHAPE, TE, infer, make_head, write

from qsmjax.io.nifti import load_volume

COILS = 4


@pytest.fixture(scope="module")
def head():
    """Mask, echoes, and those of four coils around: echo coil x y z."""
    _, mask, _, _, signal = make_head()
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    angles = 2 * np.pi * np.arange(COILS) / COILS
    smooth = lambda a: np.exp(-0.5 * ((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2) + 1j * (3 * a + x * np.cos(a) + z))
    rng = np.random.default_rng(1)
    coils = signal[:, None] * np.stack([smooth(a) for a in angles])
    noise = 0.0005 * (rng.normal(size=coils.shape) + 1j * rng.normal(size=coils.shape))
    return mask, signal, coils + noise


def coil_files(folder, coils, layout):
    """Write phase and magnitude, and return the files of each."""
    files = {}
    for name, values in (
        ("phase", np.angle(coils)),
        ("mag", np.abs(coils)),
        ("real", coils.real),
        ("imag", coils.imag),
    ):
        if layout == "one file":
            files[name] = [write(folder / f"{name}.nii.gz", np.moveaxis(values, (0, 1), (-1, -2)))]
        else:
            files[name] = [write(folder / f"{name}{n}.nii.gz", np.moveaxis(e, 0, -1)) for n, e in enumerate(values)]
    return files


GIVEN = ("--input", "phase", "--coils", "--b0", B0, "--te", *TE, "--preset", "fast", "--no-figure", "--quiet")


@pytest.mark.parametrize("layout", ["one file", "a file an echo"])
def test_single_coils_make_the_map_of_one_coil(tmp_path, head, layout):
    mask, signal, coils = head
    files = coil_files(tmp_path, coils, layout)
    brain = write(tmp_path / "mask.nii.gz", mask.astype(float))
    words = (*GIVEN, "--mask", brain, "--set", "coils.smoothing=3", "-o")
    assert infer(*files["phase"], "--magnitude", *files["mag"], *words, tmp_path / "apart.nii.gz") == 0
    assert infer(*files["real"], "--imaginary", *files["imag"], *words, tmp_path / "parts.nii.gz") == 0
    together = coil_files(tmp_path, signal[:, None], "one file")
    one = [word for word in words if word not in ("--coils", "--set", "coils.smoothing=3")]
    assert infer(*together["phase"], "--magnitude", *together["mag"], *one, tmp_path / "one.nii.gz") == 0
    apart, parts, whole = (load_volume(tmp_path / f"{name}.nii.gz").data for name in ("apart", "parts", "one"))
    np.testing.assert_allclose(parts, apart, atol=2e-3 * np.abs(apart).max())
    assert np.linalg.norm(apart - whole) < 0.05 * np.linalg.norm(whole)
    told = json.loads((tmp_path / "apart.json").read_text())
    assert told["Stages"]["coils"]["Parameters"] == {"smoothing": 3.0}
    assert told["Stages"]["coils"]["References"] == ["10.1002/mrm.26963"] and "MCPC-3D-S" in told["MethodsParagraph"]
    assert f"{COILS} coil(s) were combined" in told["Notes"]


def test_echo_times_in_another_order_and_alternating_slices_are_put_right(tmp_path, head):
    """GE's 3-D scans negate every other slice: of coils it would be taken for their offset."""
    mask, _, coils = head
    # the first coil is far away, and tells nothing
    coils = coils * np.asarray([0.0, 1, 1, 1])[:, None, None, None] + 1e-4 * coils[:, ::-1]
    brain = write(tmp_path / "mask.nii.gz", mask.astype(float))
    given = [word for word in GIVEN if word not in ("--te", *TE)]
    made = []
    for order, signs in (((0, 1, 2), 1), ((2, 0, 1), (-1.0) ** np.arange(SHAPE[2]))):
        files = coil_files(tmp_path, (coils * signs)[list(order)], "a file an echo")
        for path, n in zip(files["phase"], order):
            (path.parent / f"{path.name.removesuffix('.nii.gz')}.json").write_text(json.dumps({"EchoTime": TE[n]}))
        words = (*given, "--mask", brain, "-o", tmp_path / "map.nii.gz")
        assert infer(*files["phase"], "--magnitude", *files["mag"], *words) == 0
        made.append(load_volume(tmp_path / "map.nii.gz").data)
    notes = json.loads((tmp_path / "map.json").read_text())["Notes"]
    assert "every other slice along z was negated, since their signs alternated" in notes
    np.testing.assert_allclose(made[1], made[0], atol=1e-3 * np.abs(made[0]).max())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input", "totalfield"), "--coils must go with --input phase, got totalfield"),
        ((), "--magnitude must be given with --coils"),
        (("--magnitude", "FEWER"), "magnitude must have the 3 echoes of (4, 28, 28, 28)"),
        (("--magnitude", "MAG", "--te", 0.004), "one echo time for each of 3 echoes"),
        (("--magnitude", "MAG", "--set", "coils.smooth=1"), "did you mean smoothing?"),
        (("--magnitude", "MAG", "--set", "mask.threshold=0.1", "--mask", "MASK"), "for --input phase with --mask"),
        (("--magnitude", "MAG", "--set", "coils.smoothing=-1"), "smoothing must not be negative, got -1"),
        (("--magnitude", "MAG", "--set", "mask.threshold=2"), "threshold must lie between 0 and 1"),
    ],
)
def test_coils_that_do_not_fit_are_refused(tmp_path, head, words, message, capsys):
    mask, _, coils = head
    files = coil_files(tmp_path, coils, "one file")
    fewer = write(tmp_path / "fewer.nii.gz", np.moveaxis(np.abs(coils[:, 1:]), (0, 1), (-1, -2)))
    named = {"MAG": files["mag"][0], "FEWER": fewer, "MASK": write(tmp_path / "m.nii.gz", mask.astype(float))}
    given = [word for word in GIVEN if "--te" not in words or word not in ("--te", *TE)]
    assert infer(*files["phase"], *given, *(named.get(word, word) for word in words)) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_one_echo_of_coils_tells_no_offset_and_coils_untold_are_asked_after(tmp_path, head, capsys):
    _, _, coils = head
    one = coil_files(tmp_path, coils[:1], "one file")
    given = [word for word in GIVEN if word not in TE]
    given.insert(given.index("--te") + 1, TE[0])
    assert infer(*one["phase"], "--magnitude", *one["mag"], *given) == 2
    assert "te must hold at least 2 echoes to tell the offset from the field, got 1" in capsys.readouterr().err
    files = coil_files(tmp_path, coils, "one file")
    assert infer(*files["phase"], "--magnitude", *files["mag"], *(word for word in GIVEN if word != "--coils")) == 2
    assert "of images of single coils say --coils" in capsys.readouterr().err
    assert infer(*one["phase"], "--magnitude", *one["mag"], "--set", "coils.smoothing=3", *GIVEN[:2], *GIVEN[3:]) == 2
    assert "for --input phase: say --coils" in capsys.readouterr().err


def test_the_mask_that_is_found_has_options_and_is_told(tmp_path, head):
    _, signal, _ = head
    files = coil_files(tmp_path, signal[:, None], "one file")
    given = [word for word in GIVEN if word != "--coils"]
    counts = []
    for erode in (0, 2):
        words = (*files["phase"], "--magnitude", *files["mag"], *given, "--set", f"mask.erode={erode}")
        assert infer(*words, "-o", tmp_path / "map.nii.gz") == 0
        told = json.loads((tmp_path / "map.json").read_text())
        assert told["Stages"]["mask"]["Parameters"] == {"threshold": None, "erode": erode}
        assert told["Stages"]["mask"]["References"] == ["10.1109/TSMC.1979.4310076"]
        assert "The mask was found from the magnitude" in told["MethodsParagraph"]
        counts.append(told["MaskVoxels"])
    assert counts[1] < 0.8 * counts[0]
