"""The files of a study read back as rows."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsmjax.io.sidecar import load_json
from qsmjax.study.subject import REFERENCES


@dataclasses.dataclass(frozen=True)
class Row:
    """One method on one scan.

    Attributes:
      subject, orientation, method: whose, which, by what.
      scores: figures of merit against each reference.
      regions: mean, standard deviation [ppm] and voxels of each region.
      seconds: that the map took; NaN for the truth.
    """

    subject: str
    orientation: str
    method: str
    scores: dict[str, dict[str, float]]
    regions: dict[str, list[float]]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Study:
    """All that a study found.

    Attributes:
      subjects: by name.
      methods: labels, in the order in which they were asked for, without truth and COSMOS.
      rows: of methods, COSMOS and truth.
      variation: mean standard deviation over the orientations of each (subject, method) [ppm].
      lesions: for each method the lesions of all subjects, and the errors of their calcifications.
      regularisation: the curves over MEDI's weight, for the subjects that have one.
    """

    subjects: tuple[str, ...]
    methods: tuple[str, ...]
    rows: tuple[Row, ...]
    variation: dict[tuple[str, str], float]
    lesions: dict[str, dict[str, list[dict[str, Any]]]]
    regularisation: dict[str, list[dict[str, float]]]

    @property
    def references(self) -> tuple[str, ...]:
        """What maps were held against."""
        return tuple(r for r in REFERENCES if any(r in row.scores for row in self.rows))

    def judged(self, reference: str) -> list[str]:
        """Return what was held against a reference: COSMOS too, where that is the truth."""
        return [m for m in ("cosmos", *self.methods) if any(reference in row.scores for row in self.of(m))]

    def of(self, method: str) -> list[Row]:
        """Return the rows of a method."""
        return [row for row in self.rows if row.method == method]

    def scores(self, method: str, reference: str, metric: str) -> np.ndarray:
        """Return a metric of all scans; NaN where it is not defined."""
        return np.asarray([row.scores.get(reference, {}).get(metric, np.nan) for row in self.of(method)])

    def by_subject(self, method: str, reference: str, metric: str) -> np.ndarray:
        """Return a metric's mean over the orientations of each subject: subjects are independent, scans of one not."""
        values: dict[str, list[float]] = {name: [] for name in self.subjects}
        for row in self.of(method):
            value = row.scores.get(reference, {}).get(metric, np.nan)
            # an orientation may be without a reference
            if np.isfinite(value):
                values[row.subject].append(value)
        return np.asarray([np.mean(v) if v else np.nan for v in values.values()])

    def region(self, method: str, region: str) -> np.ndarray:
        """Return a region's means, (subject, orientation) [ppm]; NaN where it is not there."""
        orientations = list(dict.fromkeys(row.orientation for row in self.rows))
        table = np.full((len(self.subjects), len(orientations)), np.nan)
        for row in self.of(method):
            if region in row.regions:
                table[self.subjects.index(row.subject), orientations.index(row.orientation)] = row.regions[region][0]
        return table


def gather(out: Path, subjects: Sequence[str], methods: Sequence[str]) -> Study:
    """Read what the subjects of a study have left in OUT/maps.

    Args:
      out: the study's folder.
      subjects: those that are done.
      methods: labels, without truth and COSMOS.
    """
    rows, variation, curves = [], {}, {}
    lesions: dict[str, dict[str, list[dict[str, Any]]]] = {m: {"Lesions": [], "Calcification": []} for m in methods}
    for subject in subjects:
        place = out / "maps" / subject
        names = load_json(place / "subject.json")["Orientations"]
        for orientation in names:
            for method in (*REFERENCES, *methods):
                if (place / orientation / f"{method}.json").is_file():
                    rows.append(_row(subject, orientation, method, load_json(place / orientation / f"{method}.json")))
        for method in ("cosmos", *methods):
            if (place / f"{method}.json").is_file():
                variation[subject, method] = load_json(place / f"{method}.json")["Variation"]
        for method in methods:
            file = place / "lesions" / f"{method}.json"
            if file.is_file():
                found = load_json(file)
                lesions[method]["Lesions"] += found["Lesions"]
                lesions[method]["Calcification"] += [found["Calcification"]] if "Calcification" in found else []
        if (place / "regularisation.json").is_file():
            curves[subject] = load_json(place / "regularisation.json")["Rows"]
    return Study(tuple(subjects), tuple(methods), tuple(rows), variation, lesions, curves)


def _row(subject: str, orientation: str, method: str, found: dict[str, Any]) -> Row:
    seconds = float(found.get("Seconds", np.nan))
    return Row(subject, orientation, method, found["Scores"], found.get("Regions", {}), seconds)
