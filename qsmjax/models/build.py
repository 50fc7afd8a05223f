"""Networks by name, from a config that JSON can hold: what a checkpoint or a card of weights says is enough."""

import difflib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from qsmjax.models.correction import Correction
from qsmjax.models.qsmnet import ACTIVATIONS, QSMnet

NETWORKS: dict[str, type[nn.Module]] = {"qsmnet": QSMnet, "correction": Correction}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build(config: Mapping[str, Any]) -> nn.Module:
    """Make the network that a config describes.

    Args:
      config: "name", and any attributes of that network; "dtype" by its name.

    Raises:
      ValueError: if the name, an attribute, the activation or the dtype is unknown.
    """
    options = dict(config)
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"name must be one of {', '.join(NETWORKS)}, got {name!r}")
    network = NETWORKS[name]
    known = [key for key in network.__dataclass_fields__ if key not in ("parent", "name")]
    for key in options:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, 1) or [", ".join(known)]
            raise ValueError(f"{name} must be given options that it has, got {key!r}: {nearest[0]}?")
        if key != "dtype":
            _check_kind(key, options[key], network.__dataclass_fields__[key].default)
    if options.get("activation", "relu") not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {options['activation']!r}")
    dtype = options.pop("dtype", "float32")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    # JSON knows no tuples
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return network(**options, dtype=DTYPES[dtype])


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Check that an option is of its default's kind: a card out of a file may say anything."""
    if isinstance(default, bool | str):
        fits = isinstance(value, type(default))
    elif isinstance(default, int | float):
        # a float may be written as a whole number; a size beyond this one is none that a network has
        kinds = int if isinstance(default, int) else (int, float)
        fits = isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value <= 4096
    else:
        return
    if not fits:
        raise ValueError(f"{key} must be of the kind of {default!r}, got {str(value)[:80]!r}: export the network again")
