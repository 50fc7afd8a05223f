"""k-space as a plain array file: .npy, complex, with the axes x y z coil echo.

A calibration scan has the axes x y z coil, and the coils' noise sample coil. Such a file needs no library beyond NumPy
and says its type and shape itself; no pickle is read. What a scanner's raw data need beyond it (order of lines,
oversampling) is the vendor's, and is done by the converter. k = 0 stands at n // 2 along x, y and z, x is the readout,
and what was not sampled is zero.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Complex

from qsmjax.io.aside import write_aside


def load_kspace(path: str | Path) -> Complex[np.ndarray, "echo coil x y z"]:
    """Read k-space; one echo may lack the last axis.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is no such array, or holds NaN or infinity.
    """
    array = _open(path, (4, 5), "x y z coil echo")
    echoes = np.moveaxis(array if array.ndim == 5 else array[..., None], (4, 3), (0, 1))
    return _finite(path, echoes, "set what was not sampled to zero")


def load_calibration(path: str | Path) -> Complex[np.ndarray, "coil x y z"]:
    """Read a calibration scan.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is no such array, or holds NaN or infinity.
    """
    return _finite(path, np.moveaxis(_open(path, (4,), "x y z coil"), 3, 0), "cut it to what was sampled")


def load_coil_noise(path: str | Path) -> Complex[np.ndarray, "coil sample"]:
    """Read the coils' noise.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is no such array, or holds NaN or infinity.
    """
    return _finite(path, _open(path, (2,), "sample coil").T, "leave such samples out")


def _open(path: str | Path, counts: tuple[int, ...], axes: str) -> np.ndarray:
    """Map a complex array that has one of these counts of axes."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} must exist, got no such file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    # a header is Python's text: whatever the tokenizer, the parser and the reader of types may raise
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} must be a whole .npy file without objects, got one that is not ({reason})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "c" or array.ndim not in counts or not array.size:
        got = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise ValueError(f"{path} must hold a complex array with the axes {axes}, got {got}")
    return array


def _finite(path: str | Path, array: np.ndarray, cure: str) -> np.ndarray:
    """Copy an array into memory as complex64."""
    with np.errstate(over="ignore"):
        made = np.ascontiguousarray(array, np.complex64)
    if not np.isfinite(made).all():
        raise ValueError(f"{path} must be finite, got NaN or infinity: {cure}")
    return made


def save_kspace(path: str | Path, kspace: Complex[np.ndarray, "echo coil x y z"]) -> None:
    """Write k-space as `load_kspace` reads it, whole or not at all."""
    with write_aside(Path(path)) as temporary, temporary.open("wb") as file:
        np.save(file, np.moveaxis(np.asarray(kspace, np.complex64), (0, 1), (4, 3)), allow_pickle=False)
