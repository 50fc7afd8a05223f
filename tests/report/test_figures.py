"""Pictures: the right way up, true to scale, whole or not at all."""

import numpy as np
import pytest
from matplotlib.image import imread

from qsmjax.report import figures
from qsmjax.report.orientation import upright

AFFINES = {
    "RAS": np.diag([1.0, 1, 2, 1]),
    "LPS": np.diag([-1.0, -1, 2, 1]),
    "permuted": np.array([[0, 0, 1.0, 0], [-1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]]),
}


def head():
    """A marker of its own at the right, the front and the top, in display order."""
    volume = np.zeros((10, 12, 8))
    volume[8, 5, 3], volume[4, 10, 3], volume[4, 5, 6] = 1, 2, 3
    return volume


def stored(volume, affine):
    """The same head as it lies in a file of that affine: the inverse of what a viewer does."""
    matrix = affine[:3, :3]
    order = np.argmax(np.abs(matrix), axis=0)
    flips = tuple(axis for axis in range(3) if matrix[order[axis], axis] < 0)
    return np.flip(volume.transpose(order), flips)


@pytest.mark.parametrize("name", AFFINES)
def test_every_affine_is_shown_the_same_way_up(name):
    view = upright(stored(head(), AFFINES[name]), AFFINES[name])
    np.testing.assert_array_equal(view.volume, head())
    assert view.voxel_size == (1, 1, 2)


def test_a_tilted_volume_takes_the_closest_axes():
    tilt = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]) * [1, 1, 3]
    view = upright(head(), tilt)
    np.testing.assert_array_equal(view.volume, head())
    np.testing.assert_allclose(view.voxel_size, (1, 1, 3))


def test_planes_are_true_to_scale_and_alike_for_every_affine(tmp_path):
    mask = np.ones((10, 12, 8), bool)
    pictures = []
    for name, affine in AFFINES.items():
        path = tmp_path / f"{name}.png"
        figures.three_plane(
            stored(head(), affine), path, affine=affine, mask=stored(mask, affine), window=(-3, 3), dpi=50
        )
        pictures.append(imread(path))
    for other in pictures[1:]:
        np.testing.assert_array_equal(other, pictures[0])
    # the value zero is mid grey: three rectangles of 10x12, 10x16 and 12x16 mm, the tallest of 2.6 inch
    grey = (np.abs(pictures[0][..., 0] - 0.5) < 0.01).sum()
    assert grey == pytest.approx((120 + 160 + 192) * (2.6 / 16 * 50) ** 2, rel=0.1)


def test_several_volumes_have_windows_of_their_own(tmp_path):
    chi = np.random.default_rng(0).normal(size=(9, 9, 9)) * 0.05
    path = tmp_path / "new" / "rows.png"
    figures.three_plane({"chi": chi, "field": chi / 10}, path, window=[(-0.1, 0.1), None], title="t", centre=(4, 4, 4))
    assert imread(path).shape[0] > 700
    assert [p.name for p in path.parent.iterdir()] == ["rows.png"]


def test_an_empty_volume_still_gives_a_picture(tmp_path):
    figures.three_plane(np.zeros((8, 8, 8)), tmp_path / "empty.png", window=None)
    assert (tmp_path / "empty.png").exists()


def test_a_failed_picture_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "old.png"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.fsync", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        figures.three_plane(head(), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_learning_curve_shows_losses_metrics_and_the_reference(tmp_path):
    rows = [{"step": i, "loss": 2.0**-i, "loss_model": 0.1, "rate": 1e-3} for i in range(5)]
    rows += [{"step": 4, "val_nrmse": 50.0, "val_xsim": float("nan")}, {"note": 1.0}]
    figures.learning_curve(rows, tmp_path / "curve.png", reference={"nrmse": 37.0})
    assert imread(tmp_path / "curve.png").shape[1] == 2 * 4 * 150


def test_what_cannot_be_drawn_is_refused(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="one grid"):
        figures.three_plane({"a": np.ones((4, 4, 4)), "b": np.ones((4, 4, 5))}, path)
    with pytest.raises(ValueError, match="axes x, y, z alone"):
        figures.three_plane(np.ones((4, 4, 4, 2)), path)
    with pytest.raises(ValueError, match="one pair or one for each"):
        figures.three_plane(np.ones((4, 4, 4)), path, window=[None, None])
    with pytest.raises(ValueError, match="at least one record"):
        figures.learning_curve([], path)
