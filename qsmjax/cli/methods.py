"""The inversions as a user sees them: by name, with options, defaults and reference."""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from qsmjax.cli.errors import UserError
from qsmjax.cli.settings import options_of
from qsmjax.inversion import taken

DOI = re.compile(r"doi:(\S+?)[.,;]?(?=\s|$)")


def choose(name: str, methods: Mapping[str, Callable], *, what: str = "--method") -> Callable:
    """Return the method of that name.

    Raises:
      UserError: if there is none; the nearest is named.
    """
    if name not in methods:
        near = difflib.get_close_matches(name, methods, 1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise UserError(f"{what} must be one of {', '.join(methods)}, got {name!r}{hint}")
    return methods[name]


def summary(method: Callable) -> str:
    """Return the first line of a method's documentation."""
    return (inspect.getdoc(method) or "").partition("\n")[0].rstrip(".")


def dois(method: Callable) -> list[str]:
    """Return the DOIs of the papers that a method's documentation names."""
    return DOI.findall(inspect.getdoc(method) or "")


def print_methods(methods: Mapping[str, Callable]) -> None:
    """Print every method with one line, its options with their defaults, and its reference."""
    console = Console(highlight=False, soft_wrap=True)
    for name, method in methods.items():
        options = "  ".join(f"{key}={_shown(option.default)}" for key, option in options_of(method).items())
        total = " [--input totalfield, nothing removed]" if taken(method) == "totalfield" else ""
        console.print(f"[bold]{name:<12}[/bold]{escape(summary(method) + total)}")
        for line in (f"--set {options}" if options else "", *(f"doi:{doi}" for doi in dois(method))):
            if line:
                console.print(f"{'':<12}{escape(line)}")


def _shown(default: Any) -> str:
    return "auto" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
