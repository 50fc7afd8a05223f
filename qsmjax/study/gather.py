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
      anatomies: for each subject the first that is made of the same label map; its own name where it alone is.
      methods: labels, in the order in which they were asked for, without truth and COSMOS.
      rows: of methods, COSMOS and truth.
      variation: mean standard deviation over the orientations of each (subject, method) [ppm].
      lesions: for each method the lesions of all subjects, and the errors of their calcifications.
      regularisation: the curves over MEDI's weight, for the subjects that have one.
    """

    subjects: tuple[str, ...]
    anatomies: tuple[str, ...]
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

    def by_anatomy(self, method: str, reference: str, metric: str) -> np.ndarray:
        """Return a metric's mean over the orientations of each subject, then over the subjects of each anatomy.

        Anatomies are independent; scans of one head are not, nor are heads bent out of one label map.
        """
        scans: dict[str, list[float]] = {name: [] for name in self.subjects}
        for row in self.of(method):
            value = row.scores.get(reference, {}).get(metric, np.nan)
            # an orientation may be without a reference
            if np.isfinite(value):
                scans[row.subject].append(value)
        heads: dict[str, list[float]] = {name: [] for name in self.anatomies}
        for name, values in zip(self.anatomies, scans.values()):
            heads[name] += [float(np.mean(values))] if values else []
        return np.asarray([np.mean(values) if values else np.nan for values in heads.values()])

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
    rows, anatomies, variation, curves = [], [], {}, {}
    lesions: dict[str, dict[str, list[dict[str, Any]]]] = {m: {"Lesions": [], "Calcification": []} for m in methods}
    for subject in subjects:
        place = out / "maps" / subject
        described = load_json(place / "subject.json")
        anatomies.append(described.get("Anatomy", subject))
        for orientation in described["Orientations"]:
            for method in (*REFERENCES, *methods):
                if (place / orientation / f"{method}.json").is_file():
                    rows.append(_row(subject, orientation, method, load_json(place / orientation / f"{method}.json")))
        for method in ("cosmos", *methods):
            found = load_json(place / f"{method}.json") if (place / f"{method}.json").is_file() else {}
            if "Variation" in found:
                variation[subject, method] = found["Variation"]
        for method in methods:
            file = place / "lesions" / f"{method}.json"
            if file.is_file():
                found = load_json(file)
                lesions[method]["Lesions"] += found["Lesions"]
                lesions[method]["Calcification"] += [found["Calcification"]] if "Calcification" in found else []
        if (place / "regularisation.json").is_file():
            curves[subject] = load_json(place / "regularisation.json")["Rows"]
    return Study(tuple(subjects), tuple(anatomies), tuple(methods), tuple(rows), variation, lesions, curves)


def _row(subject: str, orientation: str, method: str, found: dict[str, Any]) -> Row:
    seconds = float(found.get("Seconds", np.nan))
    return Row(subject, orientation, method, found["Scores"], found.get("Regions", {}), seconds)
