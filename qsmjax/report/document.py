"""HTML of one file: the parts that all pages share. Whatever a user named or typed goes through `html.escape`."""

import base64
import contextlib
import html
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qsmjax.io.aside import write_aside

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
img { max-width: 100% }
table { border-collapse: collapse } th, td { text-align: left; padding: .15rem 1.2rem .15rem 0; vertical-align: top }
th { font-weight: 600 } .numbers td, .numbers th { text-align: right; font-variant-numeric: tabular-nums }
.numbers td:first-child, .numbers th:first-child, .words { text-align: left !important }
code { font-size: .9em; overflow-wrap: anywhere } .wide { overflow-x: auto } .faint { color: #666 }
.warnings { border-left: 4px solid #d1495b; padding: .1rem 1rem; background: #fdf3f4 }
.fine { border-left: 4px solid #3a7d44; padding: .1rem 1rem; background: #f2f8f3 }
"""

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "connect-src data: blob:"
)
"""What a page may load, for the browser to enforce: what it holds itself, and nothing from outside."""


def document(path: str | os.PathLike, title: str, parts: Iterable[str], *, style: str = "") -> None:
    """Write a page; it appears whole or not at all, and needs no other file.

    Args:
      path: where to write.
      title: of the page, as plain text.
      parts: HTML, one after the other.
      style: more CSS.
    """
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}{style}</style><h1>{html.escape(title)}</h1>"
    )
    with write_aside(pathlib.Path(path)) as temporary:
        temporary.write_text("\n".join([head, *parts, "</html>"]), encoding="utf-8")


def section(title: str, *parts: str) -> str:
    """Put parts under a heading, which is plain text."""
    return "\n".join([f"<h2>{html.escape(title)}</h2>", *parts])


def picture(title: str, path: str | os.PathLike) -> str:
    """Copy a PNG file into the page."""
    data = base64.b64encode(pathlib.Path(path).read_bytes()).decode()
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'


def pairs(named: Mapping[str, Any]) -> str:
    """Lay out names and their values, two columns."""
    rows = (f'<tr><th scope="row">{html.escape(name)}<td>{value(what)}' for name, what in named.items())
    return f"<table>{''.join(rows)}</table>"


def value(what: Any) -> str:
    """Write one value of a config or sidecar: text as it is, all else as code."""
    if isinstance(what, str):
        return html.escape(what)
    with contextlib.suppress(TypeError, ValueError):
        return f"<code>{html.escape(json.dumps(what, ensure_ascii=False))}</code>"
    return f"<code>{html.escape(str(what))}</code>"


def numbers(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out records that share names, a row each: numbers with four digits, texts as they are."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f'<th scope="col">{html.escape(name.replace("_", " "))}' for name in names)
    body = "".join("<tr>" + "".join(_cell(row.get(name)) for name in names) for row in rows)
    return f'<div class="wide"><table class="numbers"><tr>{head}{body}</table></div>'


def points(lines: Iterable[str]) -> str:
    """List lines of plain text."""
    return "<ul>" + "".join(f"<li>{html.escape(line)}" for line in lines) + "</ul>"


def data(name: str, values: Any) -> str:
    """Embed JSON for the page's scripts, under an id; no text in it can end the element."""
    text = json.dumps(values, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{html.escape(name)}">{text}</script>'


def script(text: str) -> str:
    """Embed a script of the project's own files.

    Raises:
      ValueError: if it would end its own element.
    """
    if "</script" in text.lower():
        raise ValueError("a script must not hold '</script', got one that does: write it as '<\\/script'")
    return f"<script>{text}</script>"


def _cell(what: Any) -> str:
    if what is None:
        return "<td>"
    if isinstance(what, str):
        return f'<td class="words">{html.escape(what)}'
    # counts in full, measurements to four digits
    return f"<td>{what}" if isinstance(what, int) else f"<td>{what:.4g}"
