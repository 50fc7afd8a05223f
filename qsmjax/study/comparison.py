"""What a study found, as tables: figures of merit, tests, regions, agreement, lesions, the weight's curve, time.

Means and deviations of figures of merit are over all scans, as in the paper. Tests are between the anatomies' means:
five scans of one head are not five heads, and heads bent out of one label map are not two. Deviations are of a sample.
"""

import itertools
from collections.abc import Callable

import numpy as np

from qsmjax.evaluation.statistics import agreement, holm, line, paired_t
from qsmjax.study.cohort import KINDS
from qsmjax.study.gather import Study
from qsmjax.study.lesions import LEAST
from qsmjax.study.scans import DEEP_GREY, REGIONS
from qsmjax.study.tables import Cell, Spread, Table, spread

METRICS = {
    "psnr": "pSNR [dB]",
    "nrmse": "NRMSE [%]",
    "hfen": "HFEN [%]",
    "ssim": "SSIM",
    "xsim": "XSIM",
    "streaks": "streaks [%]",
    "slope": "slope",
}
"""The paper's four, and ours."""
BOARD = {
    "nrmse_detrend": "NRMSE detrended [%]",
    "nrmse_tissue": "NRMSE tissue [%]",
    "nrmse_dgm": "NRMSE deep grey [%]",
    "dgm_linearity": "deep grey linearity",
    "correlation": "correlation",
    "coverage": "coverage",
}
"""The rest of QSM-CI's."""
TESTED = ("psnr", "nrmse", "hfen", "ssim", "xsim")
NAMES = {"truth": "the truth", "cosmos": "COSMOS"}


def all_tables(study: Study) -> list[Table]:
    """Make every table that the study has figures for."""
    tables = []
    for reference in study.references:
        tables += [metric_table(study, reference), board_table(study, reference), test_table(study, reference)]
    makers: list[Callable[[Study], Table]] = [region_table, consistency_table, agreement_table, lesion_table]
    tables += [make(study) for make in (*makers, regularisation_table, time_table)]
    return [table for table in tables if table.rows]


def metric_table(study: Study, reference: str) -> Table:
    """Tell how close each method comes, mean and deviation over all scans."""
    return _merit(study, reference, METRICS, "metrics", "Figures of merit")


def board_table(study: Study, reference: str) -> Table:
    """Tell the other figures that the QSM-CI board shows."""
    return _merit(study, reference, BOARD, "board", "QSM-CI's further figures")


def _merit(study: Study, reference: str, metrics: dict[str, str], name: str, title: str) -> Table:
    methods = study.judged(reference)
    known = [m for m in metrics if any(np.isfinite(study.scores(method, reference, m)).any() for method in methods)]
    rows: list[tuple[Cell, ...]] = [
        (method, *(spread(study.scores(method, reference, m)) for m in known)) for method in methods
    ]
    scores = [study.scores(method, reference, m) for method in methods for m in known]
    scans = max((int(np.isfinite(values).sum()) for values in scores), default=0)
    about = f"{title} against {NAMES[reference]}: mean ± std over {scans} scans of {len(study.subjects)} subjects"
    return Table(f"{name}_{reference}", about, ("method", *(metrics[m] for m in known)), tuple(rows))


def test_table(study: Study, reference: str) -> Table:
    """Test every pair of methods on every figure of merit; p values are corrected for the pairs of that figure."""
    rows: list[tuple[Cell, ...]] = []
    for metric in TESTED:
        pairs = list(itertools.combinations(study.judged(reference), 2))
        found = [paired_t(*(study.by_anatomy(m, reference, metric) for m in pair)) for pair in pairs]
        for (a, b), test, p in zip(pairs, found, holm([test.p for test in found])):
            where = (test.difference, test.lower, test.upper)
            rows.append((METRICS[metric], f"{a} - {b}", *where, test.t, test.p, p, test.effect, test.pairs))
    columns = ("metric", "methods", "difference", "lower", "upper", "t", "p", "p (Holm)", "d_z", "anatomies")
    title = (
        f"Paired t-tests between methods against {NAMES[reference]}, on each anatomy's mean over its orientations and "
        "the subjects made of its label map; lower, upper: 95 % interval of the difference, for this pair alone"
    )
    return Table(f"tests_{reference}", title, columns, tuple(rows))


def region_table(study: Study) -> Table:
    """Tell each region's susceptibility: mean and deviation over the subjects' means, then over the orientations."""
    methods = [m for m in ("truth", "cosmos", *study.methods) if study.of(m)]
    rows: list[tuple[Cell, ...]] = []
    for region in REGIONS:
        values = [study.region(method, region) for method in methods]
        if any(np.isfinite(v).any() for v in values):
            cells = [over_orientations(v) for v in values]
            rows.append((region, *(cell for mean, deviation in cells for cell in (spread(mean), _mean(deviation)))))
    columns = ("region", *(name for m in methods for name in (f"{m} [ppm]", f"{m}, over orientations [ppm]")))
    title = "Susceptibility of regions: mean ± std over subjects; and std over orientations, mean of the subjects"
    return Table("regions", title, columns, tuple(rows))


def consistency_table(study: Study) -> Table:
    """Tell how much maps vary over the head's orientation, voxel by voxel."""
    methods = [m for m in ("cosmos", *study.methods) if any(key[1] == m for key in study.variation)]
    rows = [(m, spread([1000 * study.variation[s, m] for s in study.subjects if (s, m) in study.variation]))
            for m in methods]  # fmt: skip
    title = (
        "Standard deviation over the orientations, on the reference's grid, mean over the mask; COSMOS, which is one "
        "map turned back and forth, tells what interpolation makes of it"
    )
    return Table("consistency", title, ("method", "variation [ppb]"), tuple(rows))


def points(study: Study, method: str, reference: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the deep grey nuclei's means by reference and by method [ppm], for each region, subject, orientation."""
    names = [r for r in DEEP_GREY if np.isfinite(study.region(reference, r)).any()]
    pair = [[study.region(m, r).ravel() for r in names] for m in (reference, method)]
    x, y = (np.concatenate(values) if values else np.zeros(0) for values in pair)
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def agreement_table(study: Study) -> Table:
    """Tell the line and the limits of agreement of the deep grey nuclei, against each reference."""
    rows: list[tuple[Cell, ...]] = []
    for reference in study.references:
        for method in study.judged(reference):
            x, y = points(study, method, reference)
            if x.size:
                fit, limits = line(x, y), agreement(x, y)
                rows.append((method, reference, fit.slope, fit.intercept, fit.r2, *limits, int(x.size)))
    columns = ("method", "against", "slope", "intercept [ppm]", "R²", "bias [ppm]", "lower", "upper", "points")
    title = "Means of the deep grey nuclei, a point a region and scan: regression and Bland-Altman limits (95 %)"
    return Table("agreement", title, columns, tuple(rows))


def lesion_table(study: Study) -> Table:
    """Tell what each method recovers of lesions' contrast, and of calcifications' moment."""
    rows: list[tuple[Cell, ...]] = []
    for kind in KINDS:
        for method in study.methods:
            found = [lesion for lesion in study.lesions[method]["Lesions"] if lesion["Kind"] == kind]
            if not found:
                continue
            true, seen = (np.asarray([lesion[k] for lesion in found]) for k in ("True", "Found"))
            fit, part = line(true, seen), through_zero(true, seen)
            error = spread(np.abs(seen - true))
            moments = np.asarray([lesion["Moments"] for lesion in found])
            rows.append((kind, method, len(found), part, fit.slope, fit.r2, error, _ratio(moments)))
    columns = ("lesion", "method", "n", "recovered", "slope", "R²", "error [ppm]", "moment, found / true")
    title = (
        "Lesions: contrast to the rim around. Recovered: slope of the line through zero; slope and R²: of the line "
        f"with an intercept; error: mean ± std of its absolute value. Lesions under {LEAST} voxels are left out. Their "
        "scans are local fields without background, whatever those of the orientations are"
    )
    return Table("lesions", title, columns, tuple(rows))


def through_zero(x: np.ndarray, y: np.ndarray) -> float:
    """Return the slope of the least-squares line through zero."""
    return float(x @ y / (x @ x)) if np.any(x) else float("nan")


def regularisation_table(study: Study) -> Table:
    """Tell how maps vary and err as MEDI's weight grows, mean over the subjects that have the curve."""
    curve = mean_curve(study)
    names = {
        "weight": "weight [ppm mm]",
        "lambda": "lambda",
        "variation": "variation [ppm]",
        "nrmse_truth": "NRMSE, truth [%]",
        "nrmse_cosmos": "NRMSE, COSMOS [%]",
        "region_variation": "regions' variation [ppm]",
    }
    kept = [key for key in names if curve and key in curve[0]]
    rows = tuple(tuple(row[key] for key in kept) for row in curve)
    title = f"MEDI's weight: variation over the orientations and error, {len(study.regularisation)} subject(s)"
    return Table("regularisation", title, tuple(names[key] for key in kept), rows)


def mean_curve(study: Study) -> list[dict[str, float]]:
    """Return the curve over MEDI's weight, mean over the subjects that have one; of what all of them have."""
    curves = list(study.regularisation.values())
    keys = [k for k in curves[0][0] if all(k in row for curve in curves for row in curve)] if curves else []
    return [{key: float(np.mean([row[key] for row in rows])) for key in keys} for rows in zip(*curves)]


def time_table(study: Study) -> Table:
    """Tell how long a map takes."""
    methods = [m for m in ("cosmos", *study.methods) if study.of(m)]
    seconds = {m: np.asarray([row.seconds for row in study.of(m)]) for m in methods}
    rows = [(m, spread(v), float(np.nanmedian(v))) for m, v in seconds.items()]
    title = "Time of a map [s], with compilation where a grid came first; COSMOS: once a subject, from its local fields"
    return Table("time", title, ("method", "mean ± std", "median"), tuple(rows))


def over_orientations(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each subject's mean and standard deviation over its orientations: 0 of one, NaN where it has none.

    Args:
      values: (subject, orientation), NaN where not known.
    """
    known = np.isfinite(values)
    count = known.sum(1)
    mean = np.where(known, values, 0).sum(1) / np.maximum(count, 1)
    deviation = np.sqrt(np.where(known, (values - mean[:, None]) ** 2, 0).sum(1) / np.maximum(count - 1, 1))
    return tuple(np.where(known.any(1), v, np.nan) for v in (mean, deviation))  # type: ignore[return-value]


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _ratio(moments: np.ndarray) -> Spread:
    return spread(moments[:, 1] / np.where(moments[:, 0] == 0, np.nan, moments[:, 0]))
