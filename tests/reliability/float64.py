"""Every path through a Fourier transform, and the same in NumPy's float64: for tests and `benchmarks/rounding.py`."""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.fft

from qsmjax.inversion import METHODS
from qsmjax.numerics.kspace import fast_shape, irfft3, rfft3
from qsmjax.numerics.operators import laplacian_k, sphere_mean_k
from qsmjax.numerics.resample import band_limit, resample_k
from qsmjax.numerics.spheres import sphere_kernel
from qsmjax.phase.unwrap import unwrap_laplacian
from qsmjax.physics.dipole import dipole_kernel, forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry
from qsmjax.recon.combine import image_to_kspace, kspace_to_image

Pair = tuple[str, Callable[[], Any], Callable[[], np.ndarray]]
VOXEL = np.asarray([0.7, 1.0, 1.6])
B0_DIR = np.asarray([0.3, -0.2, 0.93]) / np.linalg.norm([0.3, -0.2, 0.93])


def pairs(shape: tuple[int, int, int]) -> Iterator[Pair]:
    """Give (name, ours, NumPy's) for volumes of a shape."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=shape)
    c = a + 1j * rng.normal(size=shape)
    half = lambda whole: whole[:, :, : shape[2] // 2 + 1]
    yield "rfft3", lambda: rfft3(jnp.float32(a)), lambda: np.fft.rfftn(a)
    yield "irfft3", lambda: irfft3(jnp.complex64(np.fft.rfftn(a)), shape), lambda: a
    yield "image to k-space", lambda: image_to_kspace(c), lambda: _centred(np.fft.fftn, c)
    yield "k-space to image", lambda: kspace_to_image(c), lambda: _centred(np.fft.ifftn, c)
    yield "dipole kernel", lambda: dipole_kernel(shape, VOXEL, B0_DIR), lambda: half(_dipole(shape))
    yield "forward field", lambda: forward_field(a, geometry(shape, VOXEL, B0_DIR)), lambda: _field(a)
    yield "-Laplacian's symbol", lambda: laplacian_k(shape, VOXEL), lambda: half(_laplacian(shape))
    yield "ball's symbol", lambda: sphere_mean_k(shape, VOXEL, 4.0), lambda: half(_ball(_squared_k(shape), 4.0))
    yield "ball on the grid", lambda: sphere_kernel(shape, VOXEL, 4.0), lambda: half(_voxel_ball(shape, 4.0))
    target = tuple(n - 3 for n in shape)
    yield "resampling", lambda: resample_k(jnp.float32(a), target), lambda: _resampled(a, target)
    yield "band limit", lambda: band_limit(jnp.float32(a)), lambda: _resampled(a, shape)
    smooth = 9 * np.sin(np.indices(shape).sum(0) / 7)
    yield "Laplacian unwrapping", lambda: unwrap_laplacian(_wrap(smooth), VOXEL), lambda: _poisson(_wrap(smooth))
    # known everywhere, so that the frame is the whole grid, padded
    local = lambda: field_map(0.01 * a, np.ones(shape, bool), geometry(shape, VOXEL, B0_DIR))
    for name in ("tkd", "tsvd", "tikhonov"):
        yield name, lambda name=name: METHODS[name](local()).chi, lambda name=name: _divided(0.01 * a, name)


def error(ours: Any, expected: np.ndarray) -> float:
    """Return the largest difference over the largest value."""
    return float(np.abs(np.asarray(ours, expected.dtype) - expected).max() / np.abs(expected).max())


def _wrap(phase: np.ndarray) -> np.ndarray:
    return phase - 2 * np.pi * np.round(phase / (2 * np.pi))


def _centred(transform: Callable, volume: np.ndarray) -> np.ndarray:
    return np.fft.fftshift(transform(np.fft.ifftshift(volume), norm="ortho"))


def _k(shape: tuple[int, ...]) -> list[np.ndarray]:
    return np.meshgrid(*[np.fft.fftfreq(n, d) for n, d in zip(shape, VOXEL)], indexing="ij")


def _squared_k(shape: tuple[int, ...]) -> np.ndarray:
    return sum(k**2 for k in _k(shape))


def _dipole(shape: tuple[int, ...], flips: bool = False) -> np.ndarray:
    """1/3 - (k·b)²/|k|², the mean over the points that a sample on the Nyquist planes stands for."""
    k, squared, along = _k(shape), _squared_k(shape), 0.0
    signs = [np.where(np.arange(n) == n / 2, -1, 1) for n in shape]
    # the ±k that share a sample, or with `flips` all sign changes that do
    for turn in np.ndindex(2, 2, 2) if flips else [(0, 0, 0), (1, 1, 1)]:
        parts = [
            a * (s.reshape([-1 if j == i else 1 for j in range(3)]) if t else 1)
            for i, (a, s, t) in enumerate(zip(k, signs, turn))
        ]
        along = along + sum(b * part for b, part in zip(B0_DIR, parts)) ** 2 / (8 if flips else 2)
    return np.where(squared > 0, 1 / 3 - along / np.where(squared > 0, squared, 1), 0)


def _padded(volume: np.ndarray, shape: tuple[int, ...], work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    before = [(m - n) // 2 for n, m in zip(volume.shape, shape)]
    where = tuple(slice(b, b + n) for b, n in zip(before, volume.shape))
    whole = np.zeros(shape)
    whole[where] = volume
    return work(whole)[where]


def _field(chi: np.ndarray) -> np.ndarray:
    shape = fast_shape(chi.shape, tuple(round(n / 2) for n in chi.shape))
    return _padded(chi, shape, lambda whole: np.fft.ifftn(_dipole(shape) * np.fft.fftn(whole)).real)


def _laplacian(shape: tuple[int, ...]) -> np.ndarray:
    return sum((2 - 2 * np.cos(2 * np.pi * k * d)) / d**2 for k, d in zip(_k(shape), VOXEL))


def _ball(squared_k: np.ndarray, radius: float) -> np.ndarray:
    x = 2 * np.pi * radius * np.sqrt(squared_k)
    safe = np.where(x > 1e-3, x, 1)
    return np.where(x > 1e-3, 3 * (np.sin(safe) - safe * np.cos(safe)) / safe**3, 1 - x**2 / 10)


def _voxel_ball(shape: tuple[int, ...], radius: float) -> np.ndarray:
    steps = np.meshgrid(*[np.fft.fftfreq(n) * n * d for n, d in zip(shape, VOXEL)], indexing="ij")
    distance = np.sqrt(sum(s**2 for s in steps))
    safe = np.where(distance > 0, distance, 1)
    width = sum(np.abs(s) * d for s, d in zip(steps, VOXEL)) / safe
    weights = np.where(distance > 0, np.clip((radius - distance) / np.where(distance > 0, width, 1) + 0.5, 0, 1), 1)
    return np.fft.fftn(weights / weights.sum()).real


def _resampled(volume: np.ndarray, target: tuple[int, ...], rolloff: float = 0.2) -> np.ndarray:
    """Sum the waves that both grids hold, at the centres of the target's voxels."""
    for axis, m in enumerate(target):
        n = volume.shape[axis]
        kept = (min(n, m) - 1) // 2
        cells = np.arange(-kept, kept + 1)
        off = np.clip((np.abs(cells) / (min(n, m) / 2) - (1 - rolloff)) / rolloff, 0, 1)
        here, there = (np.arange(n) + 0.5) / n, (np.arange(m) + 0.5) / m
        out, back = (np.exp(2j * np.pi * np.outer(at, cells)) for at in (there, here))
        rows = (out * (0.5 + 0.5 * np.cos(np.pi * off)) @ back.conj().T).real / n
        volume = np.moveaxis(np.tensordot(rows, volume, (1, axis)), 0, axis)
    return volume


def _poisson(phase: np.ndarray) -> np.ndarray:
    source = np.zeros_like(phase)
    for axis, d in enumerate(VOXEL):
        steps = _wrap(np.diff(phase, axis=axis)) / d**2
        source += np.diff(np.pad(steps, [(int(a == axis),) * 2 for a in range(3)]), axis=axis)
    along = [(2 * np.cos(np.pi * np.arange(n) / n) - 2) / d**2 for n, d in zip(phase.shape, VOXEL)]
    symbol = along[0][:, None, None] + along[1][:, None] + along[2]
    symbol[0, 0, 0] = np.inf
    smooth = scipy.fft.idctn(scipy.fft.dctn(source) / symbol)
    return smooth + np.angle(np.exp(1j * (phase - smooth)).sum())


def _divided(field: np.ndarray, name: str) -> np.ndarray:
    # a mask that leaves nothing out: the frame is twice the grid
    shape = fast_shape(field.shape, field.shape)
    dipole = _dipole(shape, flips=True)
    size = np.abs(dipole)
    inverse = {
        "tkd": np.where(dipole < 0, -1, 1) / np.maximum(size, 0.15),
        "tsvd": np.where(size > 0.1, 1 / np.where(size > 0.1, dipole, 1), 0),
        "tikhonov": dipole / (dipole**2 + 0.01),
    }[name]
    inverse[0, 0, 0] = 0
    return _padded(field, shape, lambda whole: np.fft.ifftn(inverse * np.fft.fftn(whole)).real)
