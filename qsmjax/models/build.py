"""Networks by name, from a config that JSON can hold: what a checkpoint or a card of weights says is enough."""

import difflib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from qsmjax.models.qsmnet import ACTIVATIONS, QSMnet

NETWORKS: dict[str, type[nn.Module]] = {"qsmnet": QSMnet}
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
    if name not in NETWORKS:
        raise ValueError(f"name must be one of {', '.join(NETWORKS)}, got {name!r}")
    network = NETWORKS[name]
    known = [key for key in network.__dataclass_fields__ if key not in ("parent", "name")]
    for key in options:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, 1) or [", ".join(known)]
            raise ValueError(f"{name} must be given options that it has, got {key!r}: {nearest[0]}?")
    if options.get("activation", "relu") not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {options['activation']!r}")
    dtype = options.pop("dtype", "float32")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    return network(**options, dtype=DTYPES[dtype])
