"""Array types, and the checks that every public function makes first.

Volumes are (..., x, y, z) in NIfTI array order; networks see (n, x, y, z, c). Everything inside is float32 or
complex64, since TPUs have no float64.
"""

import contextlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Complex, Float

Shape = tuple[int, int, int]
Volume = Float[Array, "*batch x y z"]
Mask = Bool[Array, "*batch x y z"]
Spectrum = Complex[Array, "*batch x y zhalf"]
Kernel = Float[Array, "x y zhalf"]
Vector = Float[Array, "3"]
VectorLike = ArrayLike | Sequence[ArrayLike]


def as_volume(name: str, volume: ArrayLike) -> Volume:
    """Convert to a float32 array with at least three axes.

    Raises:
      ValueError: if there are fewer axes, or the values are complex.
    """
    array = jnp.asarray(native(volume))
    if array.ndim < 3:
        raise ValueError(f"{name} must have the axes x, y, z (others may lead), got shape {array.shape}")
    if jnp.iscomplexobj(array):
        raise ValueError(f"{name} must be real, got {array.dtype}: pass its phase or its magnitude")
    return array.astype(jnp.float32)


def native(array: ArrayLike) -> ArrayLike:
    """Bring NumPy arrays to the machine's byte order, the only one that JAX takes: old NIfTI files have the other."""
    if isinstance(array, np.ndarray) and not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array


def as_mask(name: str, mask: ArrayLike, shape: tuple[int, ...]) -> Mask:
    """Convert to booleans (true where not zero) and check the last three axes against `shape`'s.

    A mask that is known stays known inside jit, where its values decide the frame of a method.

    Raises:
      ValueError: if the grids differ, or a known mask holds NaN.
    """
    known = not isinstance(mask, jax.core.Tracer)
    with jax.ensure_compile_time_eval() if known else contextlib.nullcontext():
        array = jnp.asarray(native(mask))
        check_grid(name, array, shape)
        # NaN is not zero, and would count as inside
        if known and bool(jnp.isnan(array).any()):
            raise ValueError(f"{name} must be a number everywhere, got NaN in it: set what lies outside to zero")
        return array != 0


def as_vector(name: str, vector: VectorLike) -> Vector:
    """Convert to three float32 numbers.

    Raises:
      ValueError: if there are not three.
    """
    array = jnp.asarray(vector, jnp.float32)
    if array.shape != (3,):
        raise ValueError(f"{name} must be three numbers (x, y, z), got shape {array.shape}")
    return array


def check_grid(name: str, array: Array, shape: tuple[int, ...]) -> None:
    """Check that `array` ends in the axes x, y, z of `shape`.

    Raises:
      ValueError: if it does not.
    """
    if array.shape[-3:] != tuple(shape[-3:]):
        raise ValueError(f"{name}.shape must end in {tuple(shape[-3:])}, got {array.shape}: resample it to that grid")
