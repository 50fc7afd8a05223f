"""The methods as a user sees them: by stage and name, with options, defaults and reference."""

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


def print_methods(stages: Mapping[str, Mapping[str, Callable]]) -> None:
    """Print every method of every stage with one line, its options with their defaults, and its references."""
    console = Console(highlight=False, soft_wrap=True)
    for stage, methods in stages.items():
        words = "--method NAME --set KEY=VALUE" if stage == "inversion" else f"--set {stage}.KEY=VALUE"
        choice = f" --set {stage}.method=NAME" if stage != "inversion" and len(methods) > 1 else ""
        console.print(f"[bold]{stage}[/bold]{escape(f':{choice} {words}')}")
        for name, method in methods.items():
            options = "  ".join(f"{key}={_shown(option.default)}" for key, option in options_of(method).items())
            total = " [--input totalfield, nothing removed]" if taken(method) == "totalfield" else ""
            console.print(f"  [bold]{name:<15}[/bold]{escape(summary(method) + total)}")
            for line in (options, *(f"doi:{doi}" for doi in dois(method))):
                if line:
                    console.print(f"{'':<17}{escape(line)}")


def _shown(default: Any) -> str:
    return "auto" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
