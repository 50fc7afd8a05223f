"""metrics.csv: a row for every stretch of steps, written anew and whole each time."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsmjax.io.aside import write_aside

Row = dict[str, float]
FILE = "metrics.csv"


def read_rows(workdir: str | Path, up_to: int) -> list[Row]:
    """Read the rows of a run up to a step: those after the checkpoint that it resumes from will come again."""
    path = Path(workdir) / FILE
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in rows if row["step"] <= up_to]


def write_rows(workdir: str | Path, rows: list[Row]) -> None:
    """Write all rows; a name that a row lacks is left empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    with write_aside(Path(workdir) / FILE) as temporary:
        temporary.write_text(text.getvalue())


def mean_row(metrics: Sequence[Mapping[str, Any]]) -> Row:
    """Average the metrics of a stretch of steps."""
    return {name: float(sum(float(m[name]) for m in metrics) / len(metrics)) for name in metrics[0]}


def check_finite(row: Row, step: int) -> None:
    """Check a row before the state that it tells of is saved: a gradient may be lost where the loss is not yet.

    Raises:
      ValueError: if one of its numbers is not finite; names the loss first.
    """
    wrong = [name for name in sorted(row, key=lambda name: name != "loss") if not np.isfinite(row[name])]
    if wrong:
        raise ValueError(f"{wrong[0]} must stay finite, got {row[wrong[0]]} by step {step}: lower --set learning_rate")
