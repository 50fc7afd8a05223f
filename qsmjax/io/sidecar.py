"""JSON beside the volumes: a scan's params.json in, the map's sidecar out."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from qsmjax.io.aside import write_aside

KEYS = ("TE", "B0", "B0_dir", "voxel_size", "affine", "Manufacturer")


@dataclasses.dataclass(frozen=True)
class ScanParameters:
    """What a params.json says of a scan; None where it says nothing.

    Attributes:
      te: echo times [s].
      b0: field strength [T].
      b0_dir: direction of B0 in voxel axes.
      voxel_size: edges of a voxel [mm].
      affine: rows of the 4x4, voxel index to world [mm], of k-space, whose file has none.
      manufacturer: of the scanner: some store phase with the other sign.
    """

    te: tuple[float, ...] | None = None
    b0: float | None = None
    b0_dir: tuple[float, ...] | None = None
    voxel_size: tuple[float, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    manufacturer: str | None = None


def load_parameters(path: str | Path) -> ScanParameters:
    """Read {"TE": [s], "B0": T, "B0_dir": [x, y, z], "voxel_size": [mm], "affine": 4x4 [mm], "Manufacturer": "GE"}.

    Each key is optional.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is not such an object, a key is unknown, or a value is of the wrong kind or out of range.
    """
    values = load_json(path)
    unknown = [key for key in values if key not in KEYS]
    if unknown:
        raise ValueError(f"{path} must have keys among {', '.join(KEYS)}, got {unknown[0]!r}")
    te = _numbers(path, values, "TE", positive=True)
    b0 = _numbers(path, values, "B0", count=1, positive=True)
    size = _numbers(path, values, "voxel_size", count=3, positive=True)
    if te and max(te) > 1:
        raise ValueError(f"{path}: TE must be in seconds, got {max(te):g}: divide milliseconds by 1000")
    b0_dir = _numbers(path, values, "B0_dir", count=3)
    maker = values.get("Manufacturer")
    if not isinstance(maker, str | None):
        raise ValueError(f"{path}: Manufacturer must be a name, got {str(maker)[:80]}")
    return ScanParameters(te, b0[0] if b0 else None, b0_dir, size, _affine(path, values), maker)


def load_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is not a JSON object.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} must exist, got no such file")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON, got a file that is not ({str(error)[:120]})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values


def save_json(path: str | Path, values: dict[str, Any]) -> None:
    """Write a JSON object, indented, whole or not at all."""
    with write_aside(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _affine(path, values) -> tuple[tuple[float, ...], ...] | None:
    rows = values.get("affine")
    if rows is None:
        return None
    if not isinstance(rows, list) or len(rows) != 4:
        raise ValueError(f"{path}: affine must be four rows of four numbers, got {str(rows)[:80]}")
    named = [_numbers(path, {"affine": row}, "affine", count=4) for row in rows]
    if None in named or abs(np.linalg.det(np.asarray(named)[:3, :3])) < 1e-12 or named[3] != (0, 0, 0, 1):
        raise ValueError(f"{path}: affine must be invertible and end in 0, 0, 0, 1, got {str(rows)[:80]}")
    return tuple(row for row in named if row)


def _numbers(path, values, key, *, count=None, positive=False) -> tuple[float, ...] | None:
    if values.get(key) is None:
        return None
    value = values[key] if isinstance(values[key], list) else [values[key]]
    kind = "positive numbers" if positive else "finite numbers"
    good = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
    if not good or (count and len(value) != count) or not value or (positive and min(value) <= 0):
        raise ValueError(f"{path}: {key} must be {count or 'one or more'} {kind}, got {str(values[key])[:80]}")
    return tuple(float(v) for v in value)
