"""Statistics of a comparison between methods: paired t-tests, Holm's correction, regression, agreement.

On the host in double precision. Samples are paired: one number a subject and method. A method compared with itself has
p = 1, effect 0 and slope 1.

References:
  Holm, Scand. J. Stat. 6:65 (1979), https://www.jstor.org/stable/4615733.
  Bland & Altman, Lancet 327:307 (1986), doi:10.1016/S0140-6736(86)90837-8.
  Lakens, Front. Psychol. 4:863 (2013), doi:10.3389/fpsyg.2013.00863 (effect sizes of paired samples).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
"""Of the interval of a mean difference."""
AGREEMENT = 1.96
"""Standard deviations between the bias and the limits of agreement: 95 % of normal differences."""


class Paired(NamedTuple):
    """A paired t-test.

    Attributes:
      difference: mean of a - b.
      t: its value; infinite where all differences are the same and not zero.
      p: two-sided; 1 where a and b are the same, NaN for fewer than two pairs.
      effect: Cohen's d_z, the mean difference over the differences' standard deviation.
      pairs: how many.
      lower, upper: ends of the difference's 95 % interval, not corrected for other tests; NaN for fewer than two pairs.
    """

    difference: float
    t: float
    p: float
    effect: float
    pairs: int
    lower: float
    upper: float


class Line(NamedTuple):
    """A least-squares line y = slope · x + intercept, and the part of y's variance that it explains."""

    slope: float
    intercept: float
    r2: float


class Agreement(NamedTuple):
    """Bland and Altman's mean difference y - x, and its limits of agreement."""

    bias: float
    lower: float
    upper: float


def paired_t(a: ArrayLike, b: ArrayLike) -> Paired:
    """Test whether the mean of a - b is zero, and tell where it may lie; pairs with a NaN are left out.

    Args:
      a: one number a subject.
      b: of the same subjects, in the same order.

    Raises:
      ValueError: if there are not as many of both.
    """
    a, b = _pairs(a, b)
    difference = a - b
    mean, count = (float(difference.mean()) if difference.size else float("nan")), int(difference.size)
    deviation = float(difference.std(ddof=1)) if count > 1 else float("nan")
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, max(count - 1, 1))) * deviation / max(count, 1) ** 0.5
    ends = (mean - reach, mean + reach)
    if not np.any(difference) and count:
        return Paired(0.0, 0.0, 1.0, 0.0, count, *ends)
    if count < 2:
        return Paired(mean, float("nan"), float("nan"), float("nan"), count, *ends)
    # differences that are the same but for rounding have no spread to test against
    if deviation <= 1e-12 * abs(mean):
        return Paired(mean, float(np.copysign(np.inf, mean)), 0.0, float(np.copysign(np.inf, mean)), count, *ends)
    t = mean / deviation * np.sqrt(count)
    return Paired(mean, float(t), float(2 * scipy.stats.t.sf(abs(t), count - 1)), mean / deviation, count, *ends)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's step-down rule; NaN stays and does not count."""
    p = np.asarray(p_values, float)
    corrected = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    if order.size:
        factors = order.size - np.arange(order.size)
        corrected[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1)
    return corrected.tolist()


def line(x: ArrayLike, y: ArrayLike) -> Line:
    """Fit a line of y on x; NaN where there are not two different x. Pairs with a NaN are left out.

    Raises:
      ValueError: if there are not as many of both.
    """
    x, y = _pairs(x, y)
    if x.size < 2 or np.ptp(x) == 0:
        return Line(float("nan"), float("nan"), float("nan"))
    x0, y0 = x - x.mean(), y - y.mean()
    slope = float(x0 @ y0 / (x0 @ x0))
    power = float(y0 @ y0)
    r2 = 1 - float(np.sum((y0 - slope * x0) ** 2)) / power if power > 0 else float("nan")
    return Line(slope, float(y.mean() - slope * x.mean()), r2)


def agreement(x: ArrayLike, y: ArrayLike) -> Agreement:
    """Return the mean of y - x and where 95 % of such differences lie. Pairs with a NaN are left out.

    Raises:
      ValueError: if there are not as many of both.
    """
    x, y = _pairs(x, y)
    difference = y - x
    if difference.size < 2:
        return Agreement(float(difference.mean()) if difference.size else float("nan"), float("nan"), float("nan"))
    bias, reach = float(difference.mean()), AGREEMENT * float(difference.std(ddof=1))
    return Agreement(bias, bias - reach, bias + reach)


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, float).ravel(), np.asarray(b, float).ravel()
    if a.size != b.size:
        raise ValueError(f"a and b must be paired, got {a.size} and {b.size} numbers")
    known = np.isfinite(a) & np.isfinite(b)
    return a[known], b[known]
