"""The metrics against their definitions, against independent implementations, and against the public board's scorer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from qsmjax.evaluation import metrics
from qsmjax.evaluation.moments import mean, std

SHAPE = (28, 30, 26)
VOXELWISE = [metrics.nrmse, metrics.nrmse_detrend, metrics.psnr, metrics.hfen, metrics.ssim, metrics.xsim]


@pytest.fixture(scope="module")
def maps():
    """A head-like truth with regions, a calcification and veins, and a blurred and noisy map of it."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    mask = (grid**2).sum(0) < 0.7
    labels = np.where(mask, 8, 0)
    for number, centre in enumerate(rng.uniform(-0.5, 0.5, (7, 3)), start=1):
        labels[((grid - centre[:, None, None, None]) ** 2).sum(0) < 0.02] = number
    labels[14, 8:20, 12] = 11
    labels[12:15, 13:16, 15:18] = 16
    chi_of = np.zeros(17)
    chi_of[1:12] = [0.05, 0.18, 0.09, 0.13, 0.12, 0.15, 0.01, -0.03, 0.02, 0.0, 0.3]
    chi_of[16] = -2.5
    truth = np.where(mask, chi_of[labels] + 0.01 * rng.normal(size=SHAPE), 0)
    chi = ndimage.gaussian_filter(truth, 0.7) + 0.02 * rng.normal(size=SHAPE) + 0.03
    return chi, truth, mask, labels


def test_scores_equal_the_public_boards(maps):
    board = pytest.importorskip("qsm_ci.qsm_eval")
    chi, truth, mask, labels = maps
    expected, _ = board.score_arrays(chi, truth, mask.astype(np.uint8), "chi", labels)
    got = jax.jit(metrics.scores)(chi, truth, mask, labels)
    assert expected.keys() <= got.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)


def test_hfen_and_ssim_equal_scipys_and_scikit_images(maps):
    from skimage.metrics import structural_similarity

    chi, truth, mask, _ = maps
    chi, truth = np.where(mask, chi, 0), np.where(mask, truth, 0)
    edges = [ndimage.gaussian_laplace(v, 1.5, truncate=5)[mask] for v in (chi, truth)]
    expected = 100 * np.linalg.norm(edges[0] - edges[1]) / np.linalg.norm(edges[1])
    np.testing.assert_allclose(metrics.hfen(chi, truth, mask), expected, rtol=1e-5)

    low, high = min(chi.min(), truth.min()), max(chi.max(), truth.max())
    # the other implementation's window is 11 voxels wide and mirrors the volume at its faces: zeros keep them away
    scaled = [np.pad(np.where(mask, (v - low) / (high - low), 0), 5) for v in (chi, truth)]
    _, full = structural_similarity(
        *scaled, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    expected = full[np.pad(mask, 5)].mean()
    np.testing.assert_allclose(metrics.ssim(chi, truth, mask, radius=5), expected, rtol=1e-5)


def test_psnr_and_nrmse_equal_scikit_images(maps):
    from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio

    chi, truth, mask, _ = maps
    a, b = chi[mask], truth[mask]
    expected = peak_signal_noise_ratio(b, a, data_range=max(a.max(), b.max()) - min(a.min(), b.min()))
    np.testing.assert_allclose(metrics.psnr(chi, truth, mask), expected, rtol=1e-5)
    np.testing.assert_allclose(
        metrics.psnr(chi, truth, mask, data_range=1.0), peak_signal_noise_ratio(b, a, data_range=1)
    )
    np.testing.assert_allclose(
        metrics.nrmse(chi, truth, mask, demean=False), 100 * normalized_root_mse(b, a), rtol=1e-5
    )


def test_xsim_equals_the_definition_voxel_by_voxel(maps):
    chi, truth, mask, _ = maps
    chi, truth = np.where(mask, chi, 0), np.where(mask, truth, 0)
    values = []
    for x, y, z in np.argwhere(mask):
        cube = tuple(slice(max(i - 2, 0), i + 3) for i in (x, y, z))
        a, b = chi[cube], truth[cube]
        means = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
        covariance = ((a - a.mean()) * (b - b.mean())).mean()
        values.append(means * (2 * covariance + 1e-6) / (a.var() + b.var() + 1e-6))
    np.testing.assert_allclose(metrics.xsim(chi, truth, mask), np.mean(values), rtol=1e-5)


@pytest.mark.parametrize("metric", VOXELWISE, ids=lambda m: m.__name__)
def test_what_lies_outside_the_mask_does_not_count(metric, maps):
    chi, truth, mask, _ = maps
    noisy = np.where(mask, chi, np.nan)
    np.testing.assert_allclose(metric(noisy, np.where(mask, truth, 9), mask), metric(chi, truth, mask))


def test_equal_maps_are_perfect(maps):
    _, truth, mask, _ = maps
    got = metrics.scores(truth, truth, mask)
    perfect = {"nrmse": 0, "nrmse_detrend": 0, "hfen": 0, "ssim": 1, "xsim": 1, "correlation": 1, "psnr": np.inf}
    for name, value in perfect.items():
        np.testing.assert_allclose(got[name], value, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("metric", [metrics.nrmse, metrics.nrmse_detrend, metrics.hfen])
def test_an_error_has_a_gradient_at_the_truth_and_is_nan_where_the_map_is(metric, maps):
    _, truth, mask, _ = (jnp.asarray(volume)[8:18, 8:18, 8:18] for volume in maps)
    assert bool(jnp.isfinite(jax.grad(lambda chi: metric(chi, truth, mask))(truth)).all())
    assert bool(jnp.isnan(metric(truth.at[5, 5, 5].set(jnp.nan), truth, mask)))


def test_offset_and_slope_are_forgiven_where_the_definition_says_so(maps):
    _, truth, mask, _ = maps
    np.testing.assert_allclose(metrics.nrmse(truth + 0.5, truth, mask), 0, atol=1e-3)
    np.testing.assert_allclose(metrics.nrmse_detrend(0.4 * truth - 0.2, truth, mask), 0, atol=1e-3)
    assert metrics.nrmse(truth + 0.5, truth, mask, demean=False) > 100


def test_compiled_over_a_batch_equals_one_by_one(maps):
    chi, truth, mask, _ = maps
    several = jnp.stack([jnp.asarray(chi), jnp.asarray(chi + 0.1 * truth)])
    batch = jax.jit(jax.vmap(lambda c: metrics.scores(c, truth, mask)))(several)
    for metric in VOXELWISE:
        np.testing.assert_allclose(metric(several, truth, mask), batch[metric.__name__], rtol=2e-5)
    np.testing.assert_allclose(metrics.xsim(several[1], truth, mask), batch["xsim"][1], rtol=2e-5)


def test_means_over_many_voxels_keep_their_digits():
    values = np.random.default_rng(0).normal(0.1, 0.01, (216, 216, 216)).astype(np.float32)
    mask = np.ones(values.shape, bool)
    np.testing.assert_allclose(mean(jnp.asarray(values), jnp.asarray(mask)), values.mean(dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(std(jnp.asarray(values), jnp.asarray(mask)), values.std(dtype=np.float64), rtol=1e-5)


def test_another_grid_is_refused():
    volume = np.zeros((4, 4, 4))
    with pytest.raises(ValueError, match="truth.shape must end in"):
        metrics.nrmse(volume, np.zeros((4, 4, 5)), volume)
    with pytest.raises(ValueError, match="mask.shape must end in"):
        metrics.xsim(volume, volume, np.zeros((4, 4, 5)))
