"""The page of a training run: one HTML file that holds all it shows."""

import base64
import html
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from qsmjax.io.aside import write_aside

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
img { max-width: 100% }
table { border-collapse: collapse } th, td { text-align: left; padding: .15rem 1.2rem .15rem 0; vertical-align: top }
th { font-weight: 600 } .numbers td, .numbers th { text-align: right; font-variant-numeric: tabular-nums }
code { font-size: .9em } .wide { overflow-x: auto }
"""


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
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>',
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>",
        _pairs(facts),
        *(
            f'<h2>{html.escape(name)}</h2><img alt="{html.escape(name)}" src="{_inline(p)}">'
            for name, p in pictures.items()
        ),
        "<h2>Validations</h2>",
        _numbers(rows),
        "<h2>Config</h2>",
        _pairs({name: f"<code>{html.escape(str(value))}</code>" for name, value in config.items()}, escape=False),
        "</html>",
    ]
    with write_aside(pathlib.Path(path)) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


def _inline(path: str | os.PathLike) -> str:
    return "data:image/png;base64," + base64.b64encode(pathlib.Path(path).read_bytes()).decode()


def _pairs(pairs: Mapping[str, str], *, escape: bool = True) -> str:
    text = html.escape if escape else str
    return "<table>" + "".join(f"<tr><th>{html.escape(k)}<td>{text(v)}" for k, v in pairs.items()) + "</table>"


def _numbers(rows: Sequence[Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}" for name in names)
    # the newest first: it is what one looks for
    body = "".join("<tr>" + "".join(f"<td>{row[n]:.4g}" if n in row else "<td>" for n in names) for row in rows[::-1])
    return f'<div class="wide"><table class="numbers"><tr>{head}{body}</table></div>'
