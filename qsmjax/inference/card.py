"""What a network's card must say before anything is made of it: a card is JSON out of a file, and may say anything."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsmjax.models.scaling import Scaling

NEEDED = ("name", "network", "scaling", "voxel_size", "b0_dir")

LARGEST = 1e30
"""A number in a card lies below it."""


def check_card(file: Path, card: Mapping[str, Any], needed: Sequence[str] = NEEDED) -> None:
    """Check that a card says all that inference needs, in the kinds that it needs it in.

    Args:
      file: that it is from.
      card: what it says.
      needed: keys that it must have; the others are not looked at.

    Raises:
      ValueError: if it does not.
    """
    missing = [key for key in needed if key not in card]
    if missing:
        raise ValueError(f"{file} must say its {', '.join(needed)}, got a card without {missing[0]}: export it again")
    for key, least, what in (("voxel_size", 0.0, "three lengths [mm]"), ("b0_dir", -np.inf, "three numbers")):
        value = card.get(key)
        fits = isinstance(value, list) and len(value) == 3 and all(_number(v) and v > least for v in value)
        if key in needed and not fits:
            raise ValueError(f"{file}: {key} must be {what}, got {str(value)[:80]}: export it again")
    if "b0_dir" in needed and not any(card["b0_dir"]):
        raise ValueError(f"{file}: b0_dir must not be zero: export it again")
    names = [field.name for field in dataclasses.fields(Scaling)]
    scaling = card.get("scaling")
    fits = isinstance(scaling, dict) and sorted(scaling) == sorted(names) and all(map(_number, scaling.values()))
    if "scaling" in needed and not fits:
        raise ValueError(f"{file}: scaling must hold the numbers {', '.join(names)}, got {str(scaling)[:80]}")
    # weights before the fourth told none for edges
    for key, counts in (("calibration", (2,)), ("bootstrap", (4, 3))):
        value = card.get(key, [0.0] * counts[0])
        if not (isinstance(value, list) and len(value) in counts and all(_number(c) for c in value)):
            raise ValueError(f"{file}: {key} must be {counts[0]} numbers, got {str(value)[:80]}: train it again")
    if not isinstance(card["network"], dict):
        raise ValueError(f"{file}: network must be a config, got {str(card['network'])[:80]}: export it again")


def _number(value: Any) -> bool:
    # compared, not converted: a whole number out of JSON may be longer than any of NumPy's; NaN is below nothing
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
