"""`--set KEY=VALUE`, typed and checked against what a function takes."""

import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qsmjax.cli.errors import UserError

HIDDEN = ("report", "calibration", "noise")
"""Options that a program gives and no user types: k-space comes with the last two in files."""

NOTHING = ("none", "auto")
"""How a user says None."""


class Option(typing.NamedTuple):
    """One option of a function: its type and its default."""

    kind: Any
    default: Any


def options_of(function: Callable) -> dict[str, Option]:
    """Return the keyword-only options of a function that a user may set."""
    kinds = typing.get_type_hints(inspect.unwrap(function))
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: Option(kinds.get(p.name, Any), p.default)
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in HIDDEN
    }


def parse_settings(pairs: Iterable[str], options: Mapping[str, Option], owner: str) -> dict[str, Any]:
    """Turn KEY=VALUE words into typed options.

    Args:
      pairs: as typed.
      options: what is known, by name.
      owner: whose options they are, for the message.

    Raises:
      UserError: if a word is no pair, a key is unknown (the nearest known one is named), or a value is of another type.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set must be KEY=VALUE, got {pair!r}")
        if key not in options:
            near = difflib.get_close_matches(key, options, 1, cutoff=0.5)
            hint = f": did you mean {near[0]}?" if near else f" ({', '.join(options) or 'it takes none'})"
            raise UserError(f"--set {key} must be an option of {owner}, got an unknown one{hint}")
        settings[key] = parse_value(key, text, options[key].kind)
    return settings


def parse_value(key: str, text: str, kind: Any) -> Any:
    """Read one value as its type says.

    Raises:
      UserError: if it can't be read so.
    """
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kinds = typing.get_args(kind)
        if type(None) in kinds and text.lower() in NOTHING:
            return None
        kind = next(k for k in kinds if k is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        if text not in typing.get_args(kind):
            raise UserError(f"--set {key} must be one of {', '.join(typing.get_args(kind))}, got {text!r}")
        return text
    if typing.get_origin(kind) in (tuple, list):
        inner = typing.get_args(kind)[0]
        return tuple(parse_value(key, part, inner) for part in text.strip("()[]").split(",") if part.strip())
    if kind is bool:
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise UserError(f"--set {key} must be true or false, got {text!r}")
        return text.lower() in ("true", "yes", "1")
    if kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            raise UserError(
                f"--set {key} must be {'a whole number' if kind is int else 'a number'}, got {text!r}"
            ) from None
        # the range of what computes with it: Python's whole numbers have none
        if not (abs(value) < 2**31 if kind is int else math.isfinite(value)):
            raise UserError(f"--set {key} must be {'below 2147483648' if kind is int else 'finite'}, got {text[:40]!r}")
        return value
    return text
