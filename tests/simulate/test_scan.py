"""Laws of simulated scans, on a small head of boxes within boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from qsmjax.numerics.operators import laplacian
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.signal import gradient_echo, r2s_at
from qsmjax.physics.units import radians_per_ppm
from qsmjax.simulate.anatomy import anatomy
from qsmjax.simulate.background import background_field
from qsmjax.simulate.lesions import Lesion, place_lesions
from qsmjax.simulate.sample import sample
from qsmjax.simulate.scan import Grid, _surroundings, grid_around, refine, scan
from qsmjax.simulate.tissue import FREESURFER
from qsmjax.simulate.veins import grow_veins


@pytest.fixture(scope="module")
def labels():
    """An ellipsoid of tissue in skull and air, 3 mm, with nuclei on both sides."""
    x, y, z = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in (28, 30, 28)], indexing="ij")
    r = np.sqrt((x / 9) ** 2 + (y / 11) ** 2 + (z / 9) ** 2)
    out = np.select([r < 0.75, r < 1.0, r < 1.15, r < 1.3, r < 1.4], [2, 3, 24, 515, 507], 0)
    for side, numbers in ((-1, (28, 7, 13)), (1, (60, 46, 52))):
        for place, number in zip(((2, -1, -2), (3, -5, -3), (4, 2, 1)), numbers):
            near = (x - side * place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2 < 6
            out[near & (r < 0.75)] = number
    return out


@pytest.fixture(scope="module")
def affine():
    return np.asarray([[3.0, 0, 0, -40], [0, 3, 0, -43], [0, 0, 3, -40], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def head(labels, affine):
    return anatomy(jax.random.key(0), labels, affine, age=50, veins=6, lesions=(Lesion("calcification", -1.0, 3.0),))


@pytest.fixture(scope="module")
def scanned(head):
    grid = grid_around(head, (3.0, 3.0, 4.0), tilt=np.radians(20), margin=9.0)
    return scan(jax.random.key(1), head, grid, te=(0.004, 0.009))


def test_the_same_key_gives_the_same_head(head, labels, affine):
    again = anatomy(jax.random.key(0), labels, affine, age=50, veins=6, lesions=(Lesion("calcification", -1.0, 3.0),))
    assert again.tissues == head.tissues
    np.testing.assert_array_equal(again.balls.centre, head.balls.centre)
    np.testing.assert_array_equal(again.texture, head.texture)


def test_fibres_add_a_field_in_proportion(head, scanned):
    """The truth, a mean over directions, does not show them."""
    grid = scanned.grid
    with_fibres = scan(jax.random.key(1), head, grid, te=(0.004, 0.009), anisotropy=0.03)
    np.testing.assert_array_equal(with_fibres.chi, scanned.chi)
    added = (with_fibres.clean - scanned.clean)[scanned.mask]
    assert 1e-4 < added.std() < 0.03
    doubled = scan(jax.random.key(1), head, grid, te=(0.004, 0.009), anisotropy=0.06)
    np.testing.assert_allclose((doubled.clean - scanned.clean)[scanned.mask], 2 * added, atol=1e-6)


def test_texture_has_no_mean_and_unit_variance(head):
    inside = head.texture[head.texture != 0]
    assert abs(inside.mean()) < 1e-3 and abs(inside.std() - 1) < 1e-3


def test_nuclei_that_labels_lack_are_placed_on_both_sides(head):
    for name in ("red_nucleus", "substantia_nigra", "dentate"):
        x = np.argwhere(head.classes == head.names.index(name))[:, 0]
        assert (x < 14).any() and (x >= 14).any(), name


def test_iron_grows_with_age(labels, affine):
    chi = {}
    for age in (20, 70):
        made = anatomy(jax.random.key(0), labels, affine, age=age, veins=0)
        chi[age] = made.tissues[made.names.index("putamen")].chi
    assert chi[70] > chi[20] + 0.02


def test_the_mask_holds_the_brain_and_nothing_of_the_skull(head, labels):
    assert head.brain[np.isin(labels, (2, 3, 13))].all()
    assert not head.brain[np.isin(labels, (0, 507, 515))].any()


def test_a_speck_of_air_amid_the_brain_is_a_labelling_s_noise(labels, affine):
    speckled = np.array(labels)
    speckled[14, 15, 20], speckled[14, 15, 12] = 0, 515
    made = anatomy(jax.random.key(0), speckled, affine, veins=0)
    for place in ((14, 15, 20), (14, 15, 12)):
        assert made.brain[place] and made.names[made.classes[place]] == "csf"


def test_a_grid_of_any_tilt_shows_the_same_tissue(head):
    shares = []
    for tilt in (0.0, 0.5):
        grid = grid_around(head, (3.0, 3.0, 3.0), tilt=tilt)
        parts = sample(head, grid.shape, grid.affine, everything=False)
        shares.append([float(parts.brain.sum()), float(parts.chi[parts.brain].mean())])
    np.testing.assert_allclose(shares[0][0], shares[1][0], rtol=0.02)
    np.testing.assert_allclose(shares[0][1], shares[1][1], atol=0.003)


def test_b0_follows_the_affine_and_refining_keeps_the_edges(scanned):
    angle = np.radians(20)
    np.testing.assert_allclose(np.abs(scanned.geometry.b0_dir), [0, np.sin(angle), np.cos(angle)], atol=1e-6)
    fine = refine(scanned.grid, (2, 3, 4))
    edge = lambda grid: grid.affine @ (-0.5, -0.5, -0.5, 1)
    np.testing.assert_allclose(edge(fine), edge(scanned.grid), atol=1e-9)


def test_truth_and_field_obey_the_discrete_dipole(scanned):
    mask = scanned.mask
    field = np.asarray(forward_field(scanned.source, scanned.geometry))[mask]
    truth = scanned.clean[mask]
    error = np.linalg.norm(field - field.mean() - truth + truth.mean()) / np.linalg.norm(truth - truth.mean())
    assert error < 0.02


def test_noise_is_what_the_noise_map_says(scanned):
    mask = scanned.mask
    z = ((np.asarray(scanned.local.field) - scanned.clean) / np.asarray(scanned.local.noise))[mask]
    assert 0.9 < z.std() < 1.1 and 0.0002 < np.median(np.asarray(scanned.local.noise)[mask]) < 0.01


def test_the_background_outweighs_the_local_field_and_leaves_it_alone(head, scanned):
    made = scan(jax.random.key(1), head, scanned.grid, te=(0.004, 0.009), background=True)
    # but for voxels where a boundary moves, now that there is bone beyond it
    assert np.linalg.norm(made.clean - scanned.clean) < 0.1 * np.linalg.norm(scanned.clean)
    bone = head.names.index("bone")
    assert (made.classes == bone).any() and not (made.classes[made.mask] == bone).mean() > 0.01
    assert made.total[made.mask].std() > made.clean[made.mask].std()
    # what air and bone make in the brain has no source there
    deep = scipy.ndimage.binary_erosion(made.mask, iterations=2)
    curvature = lambda field: np.std(np.asarray(laplacian(jnp.asarray(field), made.geometry.voxel_size))[deep])
    outside = made.total - made.clean
    assert curvature(outside) < 0.1 * curvature(made.clean)
    assert np.isfinite(made.total).all() and np.isfinite(made.signal).all()


def test_the_shim_s_residue_and_the_coil_s_phase_are_drawn_independently(head, monkeypatch):
    """The coil is one on both grids; the shim's residue is drawn by the key itself, as it ever was."""
    keys = jax.random.split(jax.random.key(0), 40)
    shimmed = lambda key, *_, shim: np.full((6, 6, 6), shim * jax.random.normal(key, (9,))[0], np.float32)
    monkeypatch.setattr("qsmjax.simulate.scan.background_field", shimmed)
    grid, brain = Grid((6, 6, 6), np.eye(4)), np.ones((6, 6, 6), bool)
    made = [_surroundings(key, head, grid, (2, 2, 2), brain, 1.0) for key in keys]
    residue, fine, coarse = ([np.mean(part) for part in parts] for parts in zip(*[m[:2] + m[3:] for m in made]))
    np.testing.assert_allclose(residue, [jax.random.normal(key, (9,))[0] for key in keys], rtol=1e-5)
    np.testing.assert_allclose(fine, coarse, atol=1e-6)
    assert abs(np.corrcoef(residue, fine)[0, 1]) < 0.5


def test_the_background_is_the_same_however_the_labels_are_stored(labels, affine, scanned):
    labels = labels.copy()
    labels[8:20, 8:20, :4] = 507
    turned = affine[:, [0, 2, 1, 3]]
    made = []
    for stored, where in ((labels, affine), (labels.transpose(0, 2, 1), turned)):
        head = anatomy(jax.random.key(0), stored, where, veins=0)
        grid, mask = scanned.grid, scanned.mask
        made.append(background_field(jax.random.key(1), head, grid.affine, grid.shape, mask, shim=0.0)[mask])
    assert np.std(made[1] - made[0]) < 1e-3 * np.std(made[0])


def test_lesions_and_veins_stay_where_they_belong(head, affine):
    rng = np.random.default_rng(0)
    balls = place_lesions(rng, [Lesion("plaque")], head.classes, head.names, affine)
    assert balls.chi[1] < balls.chi[0] and balls.radius[1] < balls.radius[0]
    veins = grow_veins(rng, head.brain, affine, count=3)
    cells = np.round((veins.centre - affine[:3, 3]) / 3).astype(int)
    assert head.brain[tuple(cells.T)].all()


@pytest.mark.parametrize("lesion", [Lesion("tumour"), Lesion("plaque", tissue="tongue")])
def test_unknown_lesions_are_refused(head, affine, lesion):
    with pytest.raises(ValueError, match="must be"):
        place_lesions(np.random.default_rng(0), [lesion], head.classes, head.names, affine)


def test_another_atlas_may_lack_tissues(labels, affine):
    """What the table lacks is placed, filled in and found around the head all the same."""
    table = {"csf": (24,), "cortex": (3,), "white": (2, 28, 60, 7, 46), "pallidum": (13, 52), "dentate": (28, 60)}
    made = anatomy(jax.random.key(0), labels, affine, table=table, veins=2)
    whole = anatomy(jax.random.key(0), labels, affine, table=FREESURFER, veins=2)
    assert sorted(made.names) == sorted(whole.names)
    np.testing.assert_array_equal(made.classes == made.names.index("dentate"), np.isin(labels, (28, 60)))
    assert np.isfinite(sample(made, labels.shape, affine).chi).all()
    with pytest.raises(ValueError, match="table must name tissues of simulate.tissue, got 'gray'.*cortex"):
        anatomy(jax.random.key(0), labels, affine, table={**FREESURFER, "gray": (3,)})


@pytest.mark.parametrize("labels", [np.zeros((4, 4, 4), int), np.zeros((4, 4)), np.zeros((4, 4, 4))])
def test_labels_without_a_brain_are_refused(labels):
    with pytest.raises(ValueError, match="labels must"):
        anatomy(jax.random.key(0), labels, np.eye(4))


def test_paramagnetic_phase_grows_with_the_echo_and_the_magnitude_decays():
    shape = (2, 2, 2)
    first, second = (
        gradient_echo(jnp.full(shape, 0.1), jnp.ones(shape), jnp.full(shape, 20.0), te=te, b0=3.0)
        for te in (0.01, 0.02)
    )
    np.testing.assert_allclose(jnp.angle(first), radians_per_ppm(3.0, 0.01) * 0.1, rtol=1e-5)
    np.testing.assert_allclose(jnp.angle(second / first), jnp.angle(first), rtol=1e-4)
    np.testing.assert_allclose(jnp.abs(second / first), np.exp(-0.2), rtol=1e-5)
    assert float(r2s_at(20.0, 7.0)) > float(r2s_at(20.0, 3.0)) == pytest.approx(20.0)
