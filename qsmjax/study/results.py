"""All tables and figures of a study, and the page that shows them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qsmjax.evaluation.statistics import agreement, line
from qsmjax.io.aside import write_aside
from qsmjax.io.nifti import load_volume
from qsmjax.io.sidecar import load_json
from qsmjax.report.study_maps import cortex_figure, map_figure, orientation_figure
from qsmjax.report.study_plots import agreement_figure, region_figure, regression_figure, weight_figure
from qsmjax.study.comparison import all_tables, mean_curve, over_orientations, points
from qsmjax.study.gather import Study, gather
from qsmjax.study.scans import REGIONS
from qsmjax.study.subject import on_reference
from qsmjax.study.tables import Table, spread, to_markdown, write_table

CAPTIONS = {
    "maps": "Three planes of the first subject's reference orientation, and their differences.",
    "orientations": "One plane in all orientations, brought to the reference's grid.",
    "cortex": "The cortex, enlarged.",
    "regions": "Regions: mean over subjects and orientations; bars: standard deviation over orientations.",
    "regression_truth": "Means of the deep grey nuclei against the truth.",
    "regression_cosmos": "Means of the deep grey nuclei against COSMOS.",
    "agreement_truth": "Bland-Altman against the truth.",
    "agreement_cosmos": "Bland-Altman against COSMOS.",
    "regularisation": "MEDI: variation over orientations and error, as the regularisation changes; mean over subjects.",
    "lesions": "Contrast of lesions to the tissue around them.",
}


def write_results(
    out: Path, subjects: Sequence[str], methods: Sequence[str], facts: Mapping[str, str], *, figures: bool = True
) -> Path:
    """Write OUT/tables, OUT/figures and OUT/study.md.

    Args:
      out: the study's folder.
      subjects: those that are done.
      methods: labels, in the order of the tables.
      facts: command, machine and time, for the page.
      figures: whether to draw.

    Returns:
      The page.
    """
    study = gather(out, subjects, methods)
    (out / "tables").mkdir(exist_ok=True)
    tables = all_tables(study)
    for table in (*tables, every_scan(study)):
        write_table(out / "tables", table)
    drawn = draw(out, study) if figures else []
    page = out / "study.md"
    with write_aside(page) as temporary:
        temporary.write_text(_page(study, tables, drawn, facts), encoding="utf-8")
    return page


def every_scan(study: Study) -> Table:
    """Return every figure of merit of every map: what the other tables are made of."""
    rows = [
        (row.subject, row.orientation, row.method, reference, metric, value)
        for row in study.rows
        for reference, found in row.scores.items()
        for metric, value in found.items()
    ]
    columns = ("subject", "orientation", "method", "against", "metric", "value")
    return Table("every_scan", "Every figure of merit of every map", columns, tuple(rows), digits=5)


def draw(out: Path, study: Study) -> list[str]:
    """Draw every figure that the study has something for; return their names."""
    folder, place = out / "figures", out / "maps" / study.subjects[0]
    known = load_json(place / "subject.json")
    methods = [m for m in ("truth", "cosmos", *study.methods) if study.of(m)]
    first, *others = (place / name for name in known["Orientations"])
    # not every subject has a truth, nor every orientation
    has = lambda folder: [m for m in methods if (folder / f"{m}_Chimap.nii.gz").is_file()]
    maps = {m: load_volume(first / f"{m}_Chimap.nii.gz").data for m in has(first)}
    mask = load_volume(first / "mask.nii.gz")
    inside, reference = mask.data != 0, next(iter(maps))
    map_figure(maps, reference, folder / "maps", affine=mask.affine, mask=inside)
    cortex_figure(maps, folder / "cortex", affine=mask.affine, mask=inside)
    names = ["maps", "cortex"]
    if others:
        turned = {m: list(on_reference(place, m)) for m in maps if all(m in has(folder) for folder in others)}
        orientation_figure(turned, known["Orientations"], folder / "orientations", affine=mask.affine)
        names.append("orientations")
    names += _region_figures(folder, study, methods)
    curve = mean_curve(study)
    # maps that share no voxel have no variation
    if curve and "variation" in curve[0]:
        weight_figure(curve, folder / "regularisation")
        names.append("regularisation")
    lesions = {m: study.lesions[m]["Lesions"] for m in study.methods if study.lesions[m]["Lesions"]}
    if lesions:
        pairs = {
            m: tuple(np.asarray([lesion[k] for lesion in found]) for k in ("True", "Found"))
            for m, found in lesions.items()
        }
        fits = {m: line(*pair) for m, pair in pairs.items()}
        regression_figure(pairs, fits, folder / "lesions", labels=("true contrast [ppm]", "found [ppm]"))  # type: ignore[arg-type]
        names.append("lesions")
    return names


def _region_figures(folder: Path, study: Study, methods: list[str]) -> list[str]:
    regions = [r for r in REGIONS if any(np.isfinite(study.region(m, r)).any() for m in methods)]
    if not regions:
        return []
    values = {}
    for method in methods:
        pairs = [over_orientations(study.region(method, r)) for r in regions]
        values[method] = [(spread(mean).mean, spread(deviation).mean) for mean, deviation in pairs]
    region_figure(regions, values, folder / "regions")
    names = ["regions"]
    for reference in study.references:
        found = {m: points(study, m, reference) for m in study.judged(reference)}
        found = {m: pair for m, pair in found.items() if pair[0].size}
        if found:
            fits = {m: line(*pair) for m, pair in found.items()}
            label = (f"{'COSMOS' if reference == 'cosmos' else reference} [ppm]", "method [ppm]")
            regression_figure(found, fits, folder / f"regression_{reference}", labels=label)
            limits = {m: agreement(*pair) for m, pair in found.items()}
            agreement_figure(found, limits, folder / f"agreement_{reference}")
            names += [f"regression_{reference}", f"agreement_{reference}"]
    return names


def _page(study: Study, tables: Sequence[Table], drawn: Sequence[str], facts: Mapping[str, str]) -> str:
    orientations, anatomies = len({row.orientation for row in study.rows}), len(set(study.anatomies))
    parts = [
        "# Study",
        f"{len(study.subjects)} subject(s) of {anatomies} anatomies, {orientations} orientation(s): "
        f"{', '.join(study.methods)}.",
        *(f"- {name}: {value}" for name, value in facts.items()),
    ]
    for table in tables:
        files = f"([CSV](tables/{table.name}.csv), [LaTeX](tables/{table.name}.tex))"
        parts += [f"## {table.title}", to_markdown(table), files]
    for name in drawn:
        parts += [f"## {CAPTIONS[name]}", f"![{CAPTIONS[name]}](figures/{name}.png)", f"([PDF](figures/{name}.pdf))"]
    return "\n\n".join(parts) + "\n"
