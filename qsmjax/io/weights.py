"""Networks as safetensors files: the arrays, and in the same file a card that says what they are.

The card is JSON in the file's metadata: config, normalisation, licence, training data, scores, and a SHA-256 over
arrays and card, which is checked when the file is read. No pickle is read or written.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from qsmjax.io.aside import write_aside

FORMAT, FIRST = "qsmjax-2", "qsmjax-1"
"""Of what is written, and of older files, whose hash is of the arrays alone."""
Variables = dict[str, Any]


def save_weights(path: str | Path, variables: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Write nested variables and their card.

    Args:
      path: ends in .safetensors.
      variables: nested dicts of arrays, as a Flax module's.
      card: what JSON can hold; "sha256" is added.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in _flatten(variables).items()}
    # as it will be read
    read: dict[str, Any] = json.loads(json.dumps(dict(card), allow_nan=False))
    text = json.dumps({**read, "sha256": _digest(arrays, read)})
    with write_aside(path) as temporary:
        temporary.write_bytes(to_bytes(arrays, metadata={"format": FORMAT, "card": text}))


def load_weights(path: str | Path) -> tuple[Variables, dict[str, Any]]:
    """Read nested variables and their card.

    Raises:
      FileNotFoundError: if the file is not there.
      ValueError: if it is not such a file, is cut short, or its arrays or card do not match its hash.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} must exist, got no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} must be a safetensors file, got one that cannot be read ({error})") from error
    if metadata.get("format") not in (FORMAT, FIRST):
        raise ValueError(f"{path} must be weights that qsmjax wrote, got a safetensors file without its card")
    try:
        card = json.loads(metadata.get("card", ""))
    except ValueError as error:
        raise ValueError(f"{path} must carry a JSON card, got one that is not") from error
    known = card if isinstance(card, dict) else {}
    if known.get("sha256") != _digest(arrays, known if metadata["format"] == FORMAT else {}):
        raise ValueError(f"{path} must match the hash in its card, got another content: fetch or export it again")
    return _nest(arrays), card


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {prefix + name: value})
    return flat


def _nest(arrays: dict[str, np.ndarray]) -> Variables:
    tree: Variables = {}
    for name, array in arrays.items():
        *folders, leaf = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise ValueError(f"the arrays must be named as a tree, got {name!r} below another array")
        node[leaf] = array
    return tree


def _digest(arrays: dict[str, np.ndarray], card: Mapping[str, Any]) -> str:
    """Hash arrays and what a card says beside the hash itself."""
    digest = hashlib.sha256()
    if told := {key: value for key, value in card.items() if key != "sha256"}:
        digest.update(json.dumps(told, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape} ".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()
