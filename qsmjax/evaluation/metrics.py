"""How close a susceptibility map, or a field, comes to the truth.

Every metric is `name(chi, truth, mask)`: maps in ppm on one grid, both set to zero outside the mask before anything
else, so that what lies there never counts. Errors are in % of the truth's norm within the mask, lower is better; `psnr`
is in dB, `ssim` and `xsim` reach 1 for equal maps. The last three axes are the volume's; those that lead are kept.

Definitions are those of the 2016 reconstruction challenge, which the QSMnet paper reports, and of the 2.0 challenge and
the QSM-CI board, which take the mean off first since chi has no absolute zero.

References:
  Langkammer et al., Magn. Reson. Med. 79:1661 (2018), doi:10.1002/mrm.26830 (2016 challenge).
  QSM Challenge 2.0 Organization Committee, Magn. Reson. Med. 86:1241 (2021), doi:10.1002/mrm.28754.
  Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030 (QSMnet).
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.evaluation.calcification import calcification_error
from qsmjax.evaluation.moments import Scalar, centre, count, mean, slope, total
from qsmjax.evaluation.roi import linearity
from qsmjax.numerics.arrays import Mask, Volume, as_mask, as_volume, check_grid
from qsmjax.numerics.operators import root
from qsmjax.numerics.windows import box_mean, gaussian, laplacian_of_gaussian, similarity, xsim_map

FILTER_SIGMA = 1.5
"""Width of the Laplacian of Gaussian and of SSIM's window [voxels]."""


@dataclass(frozen=True)
class Labels:
    """Numbers of the tissues in a label map; by default those of the 2.0 challenge's head phantom.

    Attributes:
      deep_grey: caudate, pallidum, putamen, red nucleus, dentate, substantia nigra.
      tissue: thalamus, white and grey matter.
      blood: veins.
      calcification: the calcified lesion.
    """

    deep_grey: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    tissue: tuple[int, ...] = (7, 8, 9)
    blood: int = 11
    calcification: int = 16


def nrmse(chi: ArrayLike, truth: ArrayLike, mask: ArrayLike, *, demean: bool = True) -> Scalar:
    """Measure the normalised root mean square error, 100 |chi - truth| / |truth|, over the mask [%].

    Args:
      chi: the map to judge [ppm].
      truth: the reference [ppm].
      mask: where to judge.
      demean: take each map's mean over the mask off first (2.0 challenge, QSM-CI); False for the 2016 challenge's and
        the QSMnet paper's.
    """
    chi, truth, mask = _masked(chi, truth, mask)
    if demean:
        chi, truth = centre(chi, mask), centre(truth, mask)
    return _relative_error(chi, truth)


def nrmse_detrend(chi: ArrayLike, truth: ArrayLike, mask: ArrayLike) -> Scalar:
    """Measure the NRMSE that is left when the line of chi against truth has been brought to slope 1, intercept 0 [%].

        chi' = (chi - mean chi) / slope,    slope of chi = slope · truth + intercept

    References:
      QSM Challenge 2.0 Organization Committee, Magn. Reson. Med. 86:1241 (2021), doi:10.1002/mrm.28754.
    """
    chi, truth, mask = _masked(chi, truth, mask)
    return _relative_error(centre(chi, mask) / _spread(slope(truth, chi, mask)), centre(truth, mask))


def psnr(chi: ArrayLike, truth: ArrayLike, mask: ArrayLike, *, data_range: ArrayLike | None = None) -> Scalar:
    """Measure the peak signal to noise ratio, 20 log₁₀(range / RMSE), over the mask [dB].

    Args:
      chi: the map to judge [ppm].
      truth: the reference [ppm].
      mask: where to judge.
      data_range: the peak [ppm]; by default the span from the lowest to the highest value of both maps in the mask,
        which is what the 2016 challenge's scaling of both to 0..255 amounts to.
    """
    chi, truth, mask = _masked(chi, truth, mask)
    if data_range is None:
        low, high = _range(chi, truth, mask)
        data_range = high - low
    return 20 * jnp.log10(data_range / jnp.sqrt(mean((chi - truth) ** 2, mask)))


def hfen(chi: ArrayLike, truth: ArrayLike, mask: ArrayLike, *, sigma: float = FILTER_SIGMA) -> Scalar:
    """Measure the high-frequency error norm: the NRMSE of what a Laplacian of Gaussian leaves of the maps [%].

    The filter reaches 5 sigma and is given both maps already masked: the skull of a phantom's truth would otherwise
    outweigh the brain.

    Args:
      chi: the map to judge [ppm].
      truth: the reference [ppm].
      mask: where to judge.
      sigma: width of the Gaussian [voxels].

    References:
      Ravishankar & Bresler, IEEE Trans. Med. Imaging 30:1028 (2011), doi:10.1109/TMI.2010.2090538.
    """
    chi, truth, mask = _masked(chi, truth, mask)
    edges = [jnp.where(mask, laplacian_of_gaussian(v, sigma, int(5 * sigma + 0.5)), 0) for v in (chi, truth)]
    return _relative_error(*edges)


def ssim(chi: ArrayLike, truth: ArrayLike, mask: ArrayLike, *, radius: int = 2) -> Scalar:
    """Measure the structural similarity as the 2016 challenge does: mean over the mask, 1 for equal maps.

        SSIM = (2 μ_a μ_b + c₁)(2 σ_ab + c₂) / ((μ_a² + μ_b² + c₁)(σ_a² + σ_b² + c₂))

    Both maps are brought to 0..1 by the lowest (or zero, if that is lower) and highest value of the two in the mask,
    zeros outside; window: a Gaussian of sigma 1.5 on 5x5x5 voxels; c₁ = 0.01², c₂ = 0.03². The scaling makes it depend
    on the extremes of the maps: prefer `xsim`.

    Args:
      chi: the map to judge [ppm].
      truth: the reference [ppm].
      mask: where to judge.
      radius: half width of the window [voxels]; 5 in Wang's paper.

    References:
      Wang et al., IEEE Trans. Image Process. 13:600 (2004), doi:10.1109/TIP.2003.819861.
      Langkammer et al., Magn. Reson. Med. 79:1661 (2018), doi:10.1002/mrm.26830.
    """
    chi, truth, mask = _masked(chi, truth, mask)
    low, high = _range(chi, truth, mask)
    low = jnp.minimum(low, 0)
    a, b = (jnp.where(mask, (v - _spread(low)) / _spread(high - low), 0) for v in (chi, truth))
    average = lambda volume: gaussian(volume, FILTER_SIGMA, radius)
    return mean(similarity(a, b, average, 0.01**2, 0.03**2), mask)


def xsim(chi: ArrayLike, truth: ArrayLike, mask: ArrayLike) -> Scalar:
    """Measure the similarity made for susceptibility maps: mean over the mask, 1 for equal maps.

    SSIM of the maps in ppm as they are (`numerics.windows.xsim_map`).

    References:
      Milovic et al., Magn. Reson. Med. 93:411 (2025), doi:10.1002/mrm.30271.
    """
    chi, truth, mask = _masked(chi, truth, mask)
    return mean(xsim_map(chi, truth), mask)


def correlation(chi: ArrayLike, truth: ArrayLike, mask: ArrayLike) -> Scalar:
    """Measure Pearson's correlation over the mask."""
    chi, truth, mask = _masked(chi, truth, mask)
    a, b = centre(chi, mask), centre(truth, mask)
    return total(a * b) / jnp.sqrt(total(a**2) * total(b**2))


def coverage(chi: ArrayLike, mask: ArrayLike) -> Scalar:
    """Return the part of the mask where chi is finite and not zero: an eroded rim counts against a method."""
    chi = as_volume("chi", chi)
    mask = as_mask("mask", mask, chi.shape)
    return count(mask & jnp.isfinite(chi) & (chi != 0)) / count(mask)


def scores(
    chi: ArrayLike,
    truth: ArrayLike,
    mask: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    numbers: Labels | None = None,
) -> dict[str, Scalar]:
    """Compute every metric; with a label map also those of its regions.

    A region's NRMSE is the detrended one within it; veins are widened by a voxel in every direction.

    Args:
      chi: the map to judge [ppm].
      truth: the reference [ppm].
      mask: where to judge.
      labels: whole numbers on the same grid.
      numbers: which tissue each number is; the 2.0 challenge's by default.

    Returns:
      nrmse, nrmse_detrend, hfen [%]; psnr [dB]; ssim, xsim, correlation, coverage; with labels also nrmse_tissue,
      nrmse_blood, nrmse_dgm [%], dgm_linearity, calc_moment_dev [ppm · voxels], calc_streak.

    Raises:
      ValueError: if the grids differ.
    """
    chi, truth, mask = _masked(chi, truth, mask)
    metrics = (nrmse, nrmse_detrend, psnr, hfen, ssim, xsim, correlation)
    result = {metric.__name__: metric(chi, truth, mask) for metric in metrics}
    result["coverage"] = coverage(chi, mask)
    if labels is None:
        return result
    check_grid("labels", jnp.asarray(labels), chi.shape)
    labels, numbers = jnp.asarray(labels), numbers or Labels()
    veins = box_mean((mask & (labels == numbers.blood)).astype(jnp.float32), 3) > 0
    regions = {
        "nrmse_tissue": mask & jnp.isin(labels, jnp.asarray(numbers.tissue)),
        "nrmse_blood": veins,
        "nrmse_dgm": mask & jnp.isin(labels, jnp.asarray(numbers.deep_grey)),
    }
    result |= {name: nrmse_detrend(chi, truth, region) for name, region in regions.items()}
    result["dgm_linearity"] = linearity(chi, truth, labels, numbers.deep_grey)
    moment, streak = calcification_error(chi, truth, labels == numbers.calcification)
    return result | {"calc_moment_dev": moment, "calc_streak": streak}


def _masked(chi: ArrayLike, truth: ArrayLike, mask: ArrayLike) -> tuple[Volume, Volume, Mask]:
    chi, truth = as_volume("chi", chi), as_volume("truth", truth)
    check_grid("truth", truth, chi.shape)
    chi, truth, mask = jnp.broadcast_arrays(chi, truth, as_mask("mask", mask, chi.shape))
    return jnp.where(mask, chi, 0), jnp.where(mask, truth, 0), mask


def _relative_error(chi: Volume, truth: Volume) -> Scalar:
    return 100 * root(total((chi - truth) ** 2) / total(truth**2))


def _range(chi: Volume, truth: Volume, mask: Mask) -> tuple[Scalar, Scalar]:
    axes = (-3, -2, -1)
    low = jnp.minimum(*(jnp.min(v, axes, where=mask, initial=jnp.inf) for v in (chi, truth)))
    high = jnp.maximum(*(jnp.max(v, axes, where=mask, initial=-jnp.inf) for v in (chi, truth)))
    return low, high


def _spread(values: Scalar) -> Volume:
    """Give one number a volume the three axes to broadcast over it."""
    return values[..., None, None, None]
