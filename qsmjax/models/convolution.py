"""3-D convolution and its transpose, in the form that is fast on the platform they run on, with equal results.

    y(r) = Σ_s x(r + s - p) W(s),    s over the kernel, p its middle, x zero outside

Volumes are (n, x, y, z, c), kernels (kx, ky, kz, c_in, c_out). GPUs and TPUs have this convolution natively. XLA's for
the CPU is slow in three dimensions and its gradient for the kernel more so; there it is written as two-dimensional
convolutions, plane by plane or, where planes are small, tap by tap, and the gradient for the kernel as a matrix product
per plane. The form is chosen when the program is lowered, so a program exported for another platform holds that
platform's. benchmarks/convolution.py times the forms.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Maps = Float[Array, "n x y z c"]
Out = Float[Array, "n x y z d"]
Weights = Float[Array, "kx ky kz c d"]
LAYOUT_3D = ("NXYZC", "XYZIO", "NXYZC")
LAYOUT_2D = ("NYZC", "YZIO", "NYZC")
SMALL_PLANE = 256
"""Voxels below which a plane is too small to be convolved by itself (measured: 16x16 is not, 8x8 is)."""


@jax.custom_vjp
def convolve3d(maps: Maps, weights: Weights) -> Out:
    """Convolve with zero padding, so that the shape is kept; kernels have odd sizes.

    Gradients are reverse-mode, and equal to those of `lax.conv_general_dilated`.

    Raises:
      ValueError: if a kernel size is even.
    """
    if any(k % 2 == 0 for k in weights.shape[:3]):
        raise ValueError(f"weights must have odd sizes, so that they have a middle, got {weights.shape[:3]}")
    return lax.platform_dependent(maps, weights, cpu=convolve_on_cpu, default=convolve_native)


def _forward(maps: Maps, weights: Weights) -> tuple[Out, tuple[Maps, Weights]]:
    return convolve3d(maps, weights), (maps, weights)


def _backward(saved: tuple[Maps, Weights], cotangent: Out) -> tuple[Maps, Weights]:
    maps, weights = saved
    # the adjoint of a convolution is one with the kernel mirrored and its channels swapped
    mirrored = jnp.swapaxes(weights[::-1, ::-1, ::-1], 3, 4)
    kx, ky, kz = weights.shape[:3]
    native = lambda maps, cotangent: _native_weight_gradient(maps, cotangent, (kx, ky, kz))
    planes = lambda maps, cotangent: weight_gradient_planes(maps, cotangent, (kx, ky, kz))
    gradient = lax.platform_dependent(maps, cotangent, cpu=planes, default=native)
    return convolve3d(cotangent, mirrored), gradient.astype(weights.dtype)


convolve3d.defvjp(_forward, _backward)


def convolve_native(maps: Maps, weights: Weights) -> Out:
    """Convolve by XLA's own operation."""
    return lax.conv_general_dilated(maps, weights, (1, 1, 1), "SAME", dimension_numbers=LAYOUT_3D)


def convolve_on_cpu(maps: Maps, weights: Weights) -> Out:
    """Convolve in the form that is faster for the size of the planes."""
    small = maps.shape[2] * maps.shape[3] < SMALL_PLANE
    return convolve_taps(maps, weights) if small else convolve_planes(maps, weights)


def convolve_planes(maps: Maps, weights: Weights) -> Out:
    """Convolve plane by plane: the kx input planes that an output plane sees become channels of one 2-D convolution."""
    n, depth, y, z, channels = maps.shape
    taps = weights.shape[0]
    # CPUs have no fast path for half precision
    wide = _pad(maps.astype(jnp.float32), (taps, 1, 1))
    flat = jnp.moveaxis(weights.astype(jnp.float32), 0, 2).reshape(*weights.shape[1:3], taps * channels, -1)

    def plane(_, i):
        seen = jnp.moveaxis(lax.dynamic_slice_in_dim(wide, i, taps, 1), 1, 3).reshape(n, y, z, taps * channels)
        return None, lax.conv_general_dilated(seen, flat, (1, 1), "SAME", dimension_numbers=LAYOUT_2D)

    _, planes = lax.scan(plane, None, jnp.arange(depth))
    return jnp.moveaxis(planes, 0, 1).astype(maps.dtype)


def convolve_taps(maps: Maps, weights: Weights) -> Out:
    """Convolve as a sum over the kernel's first axis of two-dimensional convolutions, depth joining the batch."""
    n, depth, y, z, channels = maps.shape
    taps = weights.shape[0]
    wide = _pad(maps.astype(jnp.float32), (taps, 1, 1))
    total = jnp.zeros(())
    for i, tap in enumerate(weights.astype(jnp.float32)):
        stacked = wide[:, i : i + depth].reshape(n * depth, y, z, channels)
        total = total + lax.conv_general_dilated(stacked, tap, (1, 1), "SAME", dimension_numbers=LAYOUT_2D)
    return total.reshape(n, depth, y, z, -1).astype(maps.dtype)


def weight_gradient_planes(maps: Maps, cotangent: Out, size: tuple[int, int, int]) -> Weights:
    """Sum the kernel's gradient over the input's planes: a matrix product each.

        ∂W(s) = Σ_r x(r + s - p)ᵀ ∂y(r)

    A plane is laid out with its ky·kz neighbourhoods as columns and meets the kx planes of the cotangent that it
    reached.
    """
    (_, depth, y, z, channels), out = maps.shape, cotangent.shape[-1]
    kx, ky, kz = size
    wide = _pad(maps.astype(jnp.float32), (1, ky, kz))
    reached = _pad(cotangent.astype(jnp.float32), (kx, 1, 1))

    def add_plane(total, i):
        plane = lax.dynamic_index_in_dim(wide, i, 1, keepdims=False)
        columns = [plane[:, j : j + y, k : k + z] for j in range(ky) for k in range(kz)]
        targets = jnp.moveaxis(lax.dynamic_slice_in_dim(reached, i, kx, 1), 1, 3)
        product = jnp.concatenate(columns, -1).reshape(-1, ky * kz * channels).T @ targets.reshape(-1, kx * out)
        return total + product, None

    total, _ = lax.scan(add_plane, jnp.zeros((ky * kz * channels, kx * out)), jnp.arange(depth))
    # plane i met the cotangent's planes i - p .. i + p, which it reached through the taps kx - 1 .. 0
    total = jnp.moveaxis(total.reshape(ky, kz, channels, kx, out)[..., ::-1, :], 3, 0)
    return total.astype(maps.dtype)


def _native_weight_gradient(maps: Maps, cotangent: Out, size: tuple[int, int, int]) -> Weights:
    like = jax.ShapeDtypeStruct((*size, maps.shape[-1], cotangent.shape[-1]), maps.dtype)
    return jax.linear_transpose(lambda weights: convolve_native(maps, weights), like)(cotangent)[0]


def upsample3d(maps: Maps, weights: Float[Array, "2 2 2 c d"]) -> Float[Array, "n x2 y2 z2 d"]:
    """Convolve transposed with a 2x2x2 kernel at stride 2: y(2r + s) = x(r) W(s).

    Kernel and stride are equal, so no two taps meet: a matrix product over channels, then depth to space. XLA's
    transposed convolution, and its gradient, are many times slower on every platform (openxla/xla#34273).
    """
    n, x, y, z, channels = maps.shape
    out = weights.shape[-1]
    product = maps.reshape(-1, channels) @ jnp.moveaxis(weights, 3, 0).reshape(channels, 8 * out)
    blocks = product.reshape(n, x, y, z, 2, 2, 2, out)
    return blocks.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(n, 2 * x, 2 * y, 2 * z, out)


def max_pool3d(maps: Maps) -> Float[Array, "n x2 y2 z2 c"]:
    """Take the maximum over blocks of 2x2x2; sizes are even.

    Pair by pair: the gradient of a maximum over axes is shared among the values equal to it, and 0/0 where XLA computes
    the values anew and rounds them otherwise, so that none is.
    """
    for axis in (1, 2, 3):
        maps = jnp.maximum(*(lax.slice_in_dim(maps, first, None, 2, axis) for first in (0, 1)))
    return maps


def _pad(maps: Maps, size: tuple[int, int, int]) -> Float[Array, "n x2 y2 z2 c"]:
    return jnp.pad(maps, [(0, 0), *[(k // 2, k // 2) for k in size], (0, 0)])
