"""The page of a training run: one HTML file that holds all it shows."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from qsmjax.report import document
from qsmjax.report.document import numbers, pairs, picture, section


def training_page(
    path: str | os.PathLike,
    *,
    title: str,
    facts: Mapping[str, str],
    pictures: Mapping[str, str | os.PathLike],
    rows: Sequence[Mapping[str, float]],
    config: Mapping[str, Any],
) -> None:
    """Write the page of a training run; it appears whole or not at all, and needs no other file.

    Args:
      path: where to write.
      title: of the page.
      facts: throughput and the like, in words, under their names.
      pictures: PNG files under their titles; they are copied into the page.
      rows: the validations, one each.
      config: of the run.
    """
    parts = [
        pairs(facts),
        *(section(name, picture(name, file)) for name, file in pictures.items()),
        # the newest first: it is what one looks for
        section("Validations", numbers(rows[::-1])),
        section("Config", pairs(config)),
    ]
    document.document(path, title, parts)
