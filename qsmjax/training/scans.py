"""Scans of what a bank holds, drawn as often as a network is to see it: B0, noise, and what is left of a background.

    field = dipole(B0) * chi + noise (+ residue, or what V-SHARP leaves of a total field),    all within the mask

A source is sampled once, at some cost; a scan of it costs a few transforms. So every source is seen from many sides, on
the device that trains.
"""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float

from qsmjax.background.sharp import remove_v_sharp
from qsmjax.numerics.kspace import crop_to, pad_to
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.training.bank import Source, draw_tilt

NOISE = (1.5e-4, 4e-3)
"""Standard deviation of the field's noise, drawn evenly in its logarithm [ppm]."""
MAGNITUDE_NOISE = 15.0
"""Relative noise of the magnitude for each ppm of the field's: that of 3 T and an echo of 19 ms. A noise map is made of
magnitudes, and shares it."""
RESIDUE, FILTERED = 0.4, 0.2
"""Parts of the scans with a residue of background, and with a field that V-SHARP made of a total one."""
RIM = 12
"""Voxels about a scan in which what makes the background may lie."""
WIDEST = (6, 12)
"""Widest balls of V-SHARP, the one or the other [mm]."""
UNTOLD = 0.25
"""Part of the scans that come without their noise map, as a field alone does."""
ROUND, COARSE = 16, 64
"""Frames are rounded up to a multiple of this, so that few are compiled for; the second where not the CPU works."""


class Example(NamedTuple):
    """A scan and its truth.

    Attributes:
      field: noisy local field [ppm], zero outside the mask.
      chi: truth [ppm], zero outside the mask.
      mask: the brain's, within the box.
      noise: standard deviation of the field's noise [ppm]; zero all over where it is not told.
      voxel_size: [mm].
      b0_dir: in voxel axes.
    """

    field: Float[np.ndarray, "x y z"]
    chi: Float[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    noise: Float[np.ndarray, "x y z"]
    voxel_size: Float[np.ndarray, "3"]
    b0_dir: Float[np.ndarray, "3"]


def draw_scan(rng: np.random.Generator, source: Source) -> Example:
    """Scan a source: from a direction, with noise, and with what a background's removal leaves."""
    mask, size = source.mask, source.voxel_size
    b0_dir = _direction(rng)
    field_of = lambda chi: _field(chi, size, b0_dir)
    clean = field_of(source.chi)
    noise = _noise(rng, mask, source.signal)
    field = clean + noise * rng.standard_normal(mask.shape, np.float32)
    told = told_noise(rng, noise) if rng.uniform() >= UNTOLD else np.zeros_like(noise)
    chance = rng.uniform()
    if chance < RESIDUE:
        strength = float(rng.uniform(0.02, 0.25) * clean[mask].std())
        field += _background(rng, mask, strength, field_of)
    elif chance < RESIDUE + FILTERED:
        strength = float(np.exp(rng.uniform(*np.log((2, 30)))) * clean[mask].std())
        total = field + _background(rng, mask, strength, field_of)
        field, mask = _filtered(total, mask, size, b0_dir, float(rng.choice(WIDEST)))
    within = lambda part: np.where(mask, part, 0).astype(np.float32)
    return Example(within(field), within(source.chi), mask, within(told), size, b0_dir)


def rounded(size: int) -> int:
    """Round a frame's size up to one of the few that are compiled for."""
    multiple = ROUND if jax.default_backend() == "cpu" else COARSE
    return -(-size // multiple) * multiple


def _direction(rng: np.random.Generator) -> np.ndarray:
    """Draw where B0 points, which need not be where the grid's tilt in the head would have it: heads lie turned too."""
    tilt, about = draw_tilt(rng), rng.uniform(0, 2 * np.pi)
    return np.asarray([np.sin(tilt) * np.cos(about), np.sin(tilt) * np.sin(about), np.cos(tilt)], np.float32)


def _framed(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the frame of a scan: a rim all about it, which keeps the periodic images off too."""
    x, y, z = (rounded(n + 2 * RIM) for n in shape)
    return x, y, z


def _field(chi: np.ndarray, size: np.ndarray, b0_dir: np.ndarray) -> np.ndarray:
    frame = _framed(chi.shape)
    return np.asarray(crop_to(_forward(pad_to(chi, frame), geometry(frame, size, b0_dir)), chi.shape))


_forward = jax.jit(forward_field)


def _noise(rng: np.random.Generator, mask: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Draw a noise map: a level, as one over the signal, and a coil's slow fall."""
    level = np.exp(rng.uniform(*np.log(NOISE)))
    pattern = np.clip(np.median(signal[mask]) / np.maximum(signal, 1e-3), 0.5, 12)
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in mask.shape], indexing="ij", sparse=True)
    slow = np.exp(sum(c * a for c, a in zip(0.3 * rng.normal(size=3), axes)))
    return (level * pattern * slow).astype(np.float32)


def told_noise(rng: np.random.Generator, noise: np.ndarray) -> np.ndarray:
    """Make the noise map that a scanner's magnitudes would tell."""
    return noise * np.exp(MAGNITUDE_NOISE * noise * rng.standard_normal(noise.shape, np.float32))


def _background(rng: np.random.Generator, mask: np.ndarray, strength: float, field_of) -> np.ndarray:
    """Make the field of sources just outside the mask, of a standard deviation within it [ppm]."""
    mask = np.pad(mask, RIM)
    shell = scipy.ndimage.binary_dilation(mask, iterations=6) & ~scipy.ndimage.binary_dilation(mask, iterations=2)
    rough = scipy.ndimage.gaussian_filter(rng.standard_normal(mask.shape, np.float32), rng.uniform(1.5, 6)) * shell
    field = field_of(rough)
    return (strength / max(float(field[mask].std()), 1e-12) * field)[RIM:-RIM, RIM:-RIM, RIM:-RIM]


def _filtered(
    field: np.ndarray, mask: np.ndarray, size: np.ndarray, b0_dir: np.ndarray, widest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Take the background out of a total field by V-SHARP: what is left of it, and the mask that is left."""
    frame = _framed(field.shape)
    local = _v_sharp(pad_to(field, frame), pad_to(mask, frame), geometry(frame, size, b0_dir), widest)
    return np.asarray(crop_to(local.field, field.shape)), np.asarray(crop_to(local.mask, field.shape))


@partial(jax.jit, static_argnums=3)
def _v_sharp(field, mask, where, widest):
    return remove_v_sharp(field, mask, where, radii=tuple(np.arange(widest, 1.0, -2.0)), threshold=0.05, refinements=0)
