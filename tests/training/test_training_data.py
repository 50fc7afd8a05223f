"""Batches follow from the step alone; the paper's grid; maps from files."""

import dataclasses

import numpy as np
import pytest

from qsmjax.cli.train import choose_data
from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.training.config import TrainConfig, with_settings
from qsmjax.training.data import Drawn, Maps, Patches, grid_corners
from qsmjax.training.files import load_maps

CONFIG = with_settings(TrainConfig(), ["patch=8", "batch=3", "width=2", "depth=1", "grid=2,3,2"])


def ball(shape=(14, 12, 10), seed=0, field=False):
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    mask = sum((2 * a / n) ** 2 for a, n in zip(axes, shape)) < 0.8
    chi, measured = (np.where(mask, 0.05 * rng.normal(size=shape), 0).astype(np.float32) for _ in range(2))
    return Maps(f"ball {seed}", chi, mask, measured if field else None)


@pytest.mark.parametrize("patches", ["random", "grid"])
def test_batches_follow_from_the_step(patches):
    config = dataclasses.replace(CONFIG, patches=patches)
    one, two = (Patches(config, [ball(seed=0), ball(seed=1)]) for _ in range(2))
    one.batch(0)
    for name, array in one.batch(5).items():
        np.testing.assert_array_equal(array, two.batch(5)[name])
    other = dataclasses.replace(config, seed=1)
    assert not np.array_equal(one.batch(5)["chi"], Patches(other, [ball(seed=0), ball(seed=1)]).batch(5)["chi"])


def test_random_patches_lie_in_the_map_and_hold_some_of_the_mask():
    source = Patches(CONFIG, [ball(field=True)])
    for step in range(5):
        batch = source.batch(step)
        assert {a.shape for n, a in batch.items() if n != "index"} == {(3, 8, 8, 8)}
        assert batch["mask"].any((1, 2, 3)).all()
        np.testing.assert_array_equal(batch["index"], [0, 1, 2])


def test_an_epoch_on_the_grid_shows_each_patch_once():
    source = Patches(dataclasses.replace(CONFIG, patches="grid"), [ball(seed=0), ball(seed=1)])
    first, second = ([source._choose(i) for i in range(e * 24, e * 24 + 24)] for e in (0, 1))
    assert sorted(first) == sorted(second) == sorted(source.corners)
    assert len(set(first)) == 24 and first != second


def test_the_grid_of_the_paper_overlaps_by_two_thirds():
    shape = (176, 224, 196)
    corners = grid_corners(shape, (64, 64, 64), (6, 8, 7))
    assert len(corners) == 336
    for axis, n in enumerate(shape):
        starts = sorted({c[axis] for c in corners})
        assert starts[0] == 0 and starts[-1] + 64 == n
        assert 0.6 < 1 - np.diff(starts)[0] / 64 < 0.7
    assert sorted({c[0] for c in grid_corners((69, 64, 64), (64, 64, 64), (7, 1, 1))}) == [0, 1, 2, 3, 4, 5]


def test_a_map_smaller_than_the_patch_is_centred_in_it():
    small = ball((5, 12, 8))
    batch = Patches(CONFIG, [small]).batch(0)
    assert batch["chi"].shape == (3, 8, 8, 8)
    np.testing.assert_array_equal(batch["chi"][:, 0], 0)


def test_drawn_heads_need_only_their_indices():
    batch = Drawn(CONFIG).batch(7)
    assert list(batch) == ["index"] and batch["index"].dtype == np.int32


def test_measured_and_simulated_maps_are_mixed_by_their_share():
    scans = [ball(seed=0), ball(seed=1), ball(seed=2, field=True)]
    for share in (0.0, 0.25, 1.0):
        source = Patches(dataclasses.replace(CONFIG, measured=share), scans)
        measured = np.concatenate([source.batch(step)["measured"] for step in range(200)])
        assert abs(measured.mean() - share) < 0.06
    batch = Patches(CONFIG, scans).batch(0)
    np.testing.assert_array_equal(batch["field"].any((1, 2, 3)), batch["measured"])
    assert "measured" not in Patches(CONFIG, [ball(field=True)]).batch(0)


def test_empty_maps_are_refused():
    empty = dataclasses.replace(ball(), mask=np.zeros((14, 12, 10), bool))
    with pytest.raises(ValueError, match="voxels in its mask"):
        Patches(CONFIG, [empty])
    with pytest.raises(ValueError, match="at least one map"):
        Patches(CONFIG, [])


def write(path, data, affine=None):
    data = np.asarray(data, np.float32)
    affine = np.eye(4) if affine is None else affine
    save_volume(path, data, new_volume(data, affine))


def test_maps_and_their_mates_are_found_by_name(tmp_path):
    subject = ball(field=True)
    (tmp_path / "anat").mkdir()
    for end, data in (("chi", subject.chi), ("mask", subject.mask), ("localfield", subject.field)):
        write(tmp_path / "anat" / f"sub-1_{end}.nii.gz", data)
    write(tmp_path / "sub-2_Chimap.nii", ball(seed=2).chi)
    write(tmp_path / "sub-2_desc-std_Chimap.nii", ball(seed=3).chi)
    one, two = load_maps(tmp_path, CONFIG)
    np.testing.assert_array_equal(one.field, subject.field)
    np.testing.assert_array_equal(one.mask, subject.mask)
    assert two.field is None and two.mask.sum() == np.count_nonzero(two.chi)


def test_no_head_is_trained_on_and_validated_by(tmp_path):
    for number in (1, 2):
        folder = tmp_path / f"head{number}"
        folder.mkdir()
        for name in ("upright", "turned"):
            write(folder / f"{name}_chi.nii.gz", ball(seed=number).chi)
            (folder / f"{name}_to_reference.mat").touch()
    source, held_out = choose_data(CONFIG, str(tmp_path), None, None, print)
    assert [m.name for m in held_out] == ["turned_chi.nii.gz", "upright_chi.nii.gz"]
    assert {m.head for m in held_out} == {str(tmp_path / "head2")} and {m.head for m in source.maps} == {
        str(tmp_path / "head1")
    }
    assert choose_data(CONFIG, str(tmp_path / "head1"), None, None, print)[1] == [], "of one head all is trained on"


def test_heads_to_validate_on_are_left_out_of_those_to_train_on(tmp_path, monkeypatch):
    for place in ("val/sub-9_chi", "val/other_chi", "sub-9_run-2_chi", "sub-1_chi"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write(tmp_path / f"{place}.nii.gz", ball().chi)
    monkeypatch.chdir(tmp_path)
    lines = []
    source, held_out = choose_data(CONFIG, ".", None, str(tmp_path / "val"), lines.append)
    assert [m.name for m in source.maps] == ["sub-1_chi.nii.gz"] and len(held_out) == 2
    (line,) = lines
    assert all(name in line for name in ("sub-9_run-2_chi", "sub-9_chi", "other_chi"))
    with pytest.raises(ValueError, match="must hold maps of other heads than --validation, got none"):
        choose_data(CONFIG, "val", None, "val", lines.append)


def test_files_that_do_not_fit_are_told(tmp_path):
    with pytest.raises(ValueError, match="must hold maps named NAME_chi"):
        load_maps(tmp_path, CONFIG)
    with pytest.raises(FileNotFoundError, match="folder of maps"):
        load_maps(tmp_path / "no", CONFIG)
    write(tmp_path / "a_chi.nii.gz", ball().chi, np.diag([1, 1, 2, 1]))
    with pytest.raises(ValueError, match="set voxel_size=1,1,2"):
        load_maps(tmp_path, CONFIG)
    write(tmp_path / "a_chi.nii.gz", ball().chi)
    write(tmp_path / "a_mask.nii.gz", np.ones((3, 3, 3)))
    with pytest.raises(ValueError, match="grid of a_chi"):
        load_maps(tmp_path, CONFIG)
    (tmp_path / "a_mask.nii.gz").unlink()
    turned = np.eye(4)[[0, 2, 1, 3]]
    write(tmp_path / "a_chi.nii.gz", ball().chi, turned)
    load_maps(tmp_path, CONFIG)
    write(tmp_path / "a_field.nii.gz", ball().chi, turned)
    with pytest.raises(ValueError, match="B0 along its third axis"):
        load_maps(tmp_path, CONFIG)
    write(tmp_path / "a_chi.nii.gz", np.full((4, 4, 4), np.nan))
    with pytest.raises(ValueError, match="must be finite"):
        load_maps(tmp_path, CONFIG)


def test_maps_of_another_unit_are_told(tmp_path):
    chi = ball().chi
    write(tmp_path / "a_chi.nii.gz", 1000 * chi)
    with pytest.raises(ValueError, match=r"a_chi.nii.gz must be a susceptibility map in ppm.*divide ppb by 1000"):
        load_maps(tmp_path, CONFIG)
    write(tmp_path / "a_chi.nii.gz", chi)
    write(tmp_path / "a_field.nii.gz", 128 * 0.2 * chi)
    with pytest.raises(ValueError, match=r"a_field.nii.gz must be a local field in ppm.*stays under 0.1, got 1\.\d"):
        load_maps(tmp_path, CONFIG)


@pytest.mark.parametrize("end", ["mask", "field"])
def test_a_mate_must_lie_where_its_map_lies(end, tmp_path):
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = 13
    write(tmp_path / "a_chi.nii.gz", ball().chi)
    write(tmp_path / f"a_{end}.nii.gz", ball().chi, mirrored)
    with pytest.raises(ValueError, match=f"a_{end}.nii.gz must lie where a_chi.nii.gz lies, got an affine 13 off"):
        load_maps(tmp_path, CONFIG)
    # as headers round theirs
    write(tmp_path / f"a_{end}.nii.gz", ball().chi, np.eye(4) + 1e-3)
    load_maps(tmp_path, CONFIG)


def test_a_field_may_be_stored_from_head_to_foot(tmp_path):
    for end in ("chi", "field"):
        write(tmp_path / f"a_{end}.nii.gz", ball().chi, np.diag([1.0, 1, -1, 1]))
    assert load_maps(tmp_path, CONFIG)[0].field is not None
