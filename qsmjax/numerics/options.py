"""Options of methods where they are handed over: checked if they can be looked at, and parted for compilation."""

import numbers
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Number = float | jax.Array
"""A number that may be traced."""


def real(value: Number) -> Number:
    """Return a number as a float, which is traced where whole numbers are static; an array, traced or not, as it is."""
    return value if isinstance(value, jax.Array) else float(value)


def check_option(name: str, value: Any, *, zero: bool = False) -> None:
    """Check that a number, or each of several, is positive and finite; those that are traced can't be looked at.

    Args:
      name: the option's, for the message.
      value: of any kind; what is no number passes.
      zero: whether zero and infinity pass too.

    Raises:
      ValueError: if it is not, or of several there is none.
    """
    if value is None or isinstance(value, jax.core.Tracer | bool | str) or callable(value):
        return
    numbers_given = np.asarray(value)
    if not numbers_given.size:
        raise ValueError(f"{name} must hold at least one number, got none")
    if zero and not np.all(numbers_given >= 0):
        raise ValueError(f"{name} must not be negative, got {value}")
    if not zero and not np.all(np.isfinite(numbers_given) & (numbers_given > 0)):
        raise ValueError(f"{name} must be positive and finite, got {value}")


def parted(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part options into those that are static, counts and choices, and those that are traced: all other numbers."""
    static = {name: value for name, value in options.items() if _is_static(value)}
    return static, {name: value for name, value in options.items() if name not in static}


def _is_static(value: Any) -> bool:
    return value is None or isinstance(value, bool | numbers.Integral | str | tuple) or callable(value)
