"""Rows to CSV, Markdown and LaTeX: one table, three files."""

import csv
import dataclasses
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from qsmjax.io.aside import write_aside


class Spread(NamedTuple):
    """A mean and the standard deviation about it."""

    mean: float
    std: float


SIGNS = {"±": r"$\pm$", "∞": r"$\infty$", "²": "$^2$", "·": r"$\cdot$", "λ": r"$\lambda$", "≤": r"$\le$"}
"""What LaTeX calls them."""

Cell = str | int | float | Spread


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      name: of its files.
      title: above it; says what n is.
      columns: their names, with units.
      rows: cells in the order of the columns.
      digits: significant digits of the numbers.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    digits: int = 3


def spread(values: ArrayLike) -> Spread:
    """Return mean and standard deviation (of a sample) of what is finite; NaN of nothing."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not known.size:
        return Spread(float("nan"), float("nan"))
    return Spread(float(known.mean()), float(known.std(ddof=1)) if known.size > 1 else 0.0)


def write_table(folder: Path, table: Table) -> None:
    """Write NAME.csv with every digit, NAME.md and NAME.tex rounded."""
    for suffix, text in (("csv", to_csv(table)), ("md", to_markdown(table)), ("tex", to_latex(table))):
        with write_aside(folder / f"{table.name}.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8")


def to_csv(table: Table) -> str:
    """Return the table as CSV, a mean and its deviation in two columns."""
    wide = [any(isinstance(row[i], Spread) for row in table.rows) for i in range(len(table.columns))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [[f"{c} mean", f"{c} std"] if w else [c] for c, w in zip(table.columns, wide)]
    writer.writerow([name for pair in names for name in pair])
    for row in table.rows:
        cells = [_pair(cell) if w else [cell] for cell, w in zip(row, wide)]
        writer.writerow(["" if isinstance(c, float) and np.isnan(c) else c for pair in cells for c in pair])
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """Return the table as Markdown."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    cells = [[shown(cell, table.digits).replace("|", "\\|") for cell in row] for row in table.rows]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """Return the table as LaTeX, for booktabs."""
    line = lambda cells: " & ".join(cells) + r" \\"
    body = [line([_latex(shown(cell, table.digits)) for cell in row]) for row in table.rows]
    columns = "l" + "r" * (len(table.columns) - 1)
    head = line([_latex(column) for column in table.columns])
    top, end = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"], [r"\bottomrule", r"\end{tabular}"]
    parts = [*top, head, r"\midrule", *body, *end]
    return f"% {table.title}\n" + "\n".join(parts) + "\n"


def shown(cell: Cell, digits: int = 3) -> str:
    """Return a cell as it is read: a number to its digits, a deviation to its mean's decimals, "-" for none."""
    if isinstance(cell, Spread):
        std = _decimal(cell.std, digits, cell.mean)
        return "-" if np.isnan(cell.mean) else f"{_decimal(cell.mean, digits)} ± {std}"
    if isinstance(cell, float):
        return "-" if np.isnan(cell) else _decimal(cell, digits)
    return str(cell)


def _decimal(value: float, digits: int, like: float | None = None) -> str:
    if np.isnan(value):
        return "-"
    if np.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value if like is None else like)
    if size > 0 and (size < 1e-4 or size >= 1e6):
        return f"{value:.{digits - 1}e}"
    # as many decimals as the mean's digits leave
    places = digits - 1 - (int(np.floor(np.log10(size))) if size > 0 else 0)
    return f"{value:.{max(0, min(places, 5))}f}"


def _pair(cell: Cell) -> list[Cell]:
    return [cell.mean, cell.std] if isinstance(cell, Spread) else [cell, ""]


def _latex(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, "\\" + character)
    for word, sign in SIGNS.items():
        text = text.replace(word, sign)
    return text
