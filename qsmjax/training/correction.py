"""What a correction is trained on, and by: patches of what the physics saw of whole scans, and the gain over the start.

    loss = |e|₁ / |e₀|₁ + ‖e‖₂ / ‖e₀‖₂ + ½ |∇e|₁ / |∇e₀|₁ + ½ (1 - xSIM) / (1 - xSIM₀) + 0.1 (log s + ½ (e / s)²),

    e₀ and xSIM₀ the start's own error and similarity

Each patch counts alike, however large its errors: what a lesion leaves does not drown the tissue. The mean of e₀ over a
patch is taken off e₀, and so off e: a map's own is not in its field, nor does it tell of a background's residue, and a
network that is asked for them learns its scans by heart (held-out errors then rise while those in training fall).
Errors alone are least where every faint contrast is drawn towards its surroundings; xSIM, in whose windows contrast
counts by its kind and not by its size, holds it up. The last term, which does not move the map, makes s the standard
deviation of what is left.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from qsmjax.models import unrolled
from qsmjax.numerics.windows import xsim_map
from qsmjax.training.sight import Seen

DECAY = 0.05
"""Of the weights, at each step in proportion to the rate."""
OPTIMISATION = (
    "errors over the start's: L1 + RMS + 0.5 gradient + 0.5 (1 - xSIM), and 0.1 of the deviation's likelihood; Muon "
    "for kernels, Adam at a tenth of the rate for the rest, 50 steps up and a cosine to zero; a moving average is kept"
)
"""What a card says of it."""


def place(
    rng: np.random.Generator, inside: np.ndarray, shape: tuple[int, ...], edge: int
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Choose where a patch begins, about a voxel of the mask, and one of the 48 positions that a cube has.

    Args:
      rng: draws.
      inside: from `inside_of`.
      shape: of the scan.
      edge: of the patch.

    Returns:
      The corner, which axis of the scan each axis of the patch is, and in which sense.
    """
    middle = inside[rng.integers(len(inside))]
    room = [max(n - edge, 0) for n in shape]
    corner = [int(np.clip(m - rng.integers(edge // 4, 3 * edge // 4), 0, most)) for m, most in zip(middle, room)]
    return corner, rng.permutation(3), rng.choice([-1, 1], 3)


def inside_of(mask: np.ndarray) -> np.ndarray:
    """Return voxels of a mask that patches are cut about: every fourth along each axis."""
    return np.argwhere(mask[::4, ::4, ::4]) * 4


def cut(rng: np.random.Generator, seen: Seen, edge: int) -> dict[str, np.ndarray]:
    """Cut a patch out of a scan, and turn it with its grid; what lies outside the scan is zero."""
    corner, order, signs = place(rng, inside_of(seen.mask), seen.mask.shape, edge)
    pad = [(0, max(edge - n, 0)) for n in seen.mask.shape]
    box = tuple(slice(c, c + edge) for c in corner)
    turn = lambda part: np.ascontiguousarray(_turn(_padded(part, pad)[box], order, signs))
    return {
        "features": turn(seen.features),
        "chi": turn(seen.chi),
        "mask": turn(seen.mask),
        "voxel_size": np.asarray(seen.voxel_size[order], np.float32),
        "b0_dir": np.asarray(seen.b0_dir[order] * signs, np.float32),
    }


def _padded(part: np.ndarray, pad: list[tuple[int, int]]) -> np.ndarray:
    return np.pad(part, [*pad, *[(0, 0)] * (part.ndim - 3)]) if any(b for _, b in pad) else part


def _turn(part: np.ndarray, order: np.ndarray, signs: np.ndarray) -> np.ndarray:
    return part.transpose(*order, *range(3, part.ndim))[tuple(slice(None, None, int(s)) for s in signs)]


def loss_of(
    network: nn.Module, params: Any, batch: dict[str, Array]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Return the loss of a batch of patches, and its terms."""
    features = batch["features"].astype(jnp.float32)
    numbers = jax.vmap(unrolled.about)(batch["voxel_size"], batch["b0_dir"])
    made: Any = network.apply({"params": params}, features, numbers)
    change, spread = made
    mask = batch["mask"]
    begun = start_error(batch)
    error = jnp.where(mask, begun + change, 0)
    axes = (1, 2, 3)
    ratio = lambda norm: jnp.mean(norm(error) / (norm(begun) + 1e-6))
    l1 = ratio(lambda e: jnp.mean(jnp.abs(e), axes))
    rms = ratio(lambda e: jnp.sqrt(jnp.mean(e**2, axes) + 1e-12))
    # between neighbours alone: opposite faces of a patch are none
    steep = ratio(lambda e: sum(jnp.mean(jnp.abs(jnp.diff(e, axis=axis)), axes) for axis in axes))
    unlike = ratio(lambda e: 1 - _masked_mean(xsim_map(batch["chi"] + e, batch["chi"]), mask))
    # the spread learns from the error, the error not from the spread
    off = jax.lax.stop_gradient(error) * jnp.exp(-spread)
    # of each patch too, so that the mean of the devices' means is the mean
    likelihood = jnp.mean(_masked_mean(spread + 0.5 * jnp.minimum(off**2, 100.0), mask))
    terms = {"l1": l1, "rms": rms, "gradient": steep, "dissimilarity": unlike, "likelihood": likelihood}
    return l1 + rms + 0.5 * steep + 0.5 * unlike + 0.1 * likelihood, terms


def start_error(batch: dict[str, Array]) -> Float[Array, "n x y z"]:
    """Return the start's error in each patch, less its mean over the mask [ppm]; zero outside the mask."""
    mask = batch["mask"]
    error = unrolled.UNIT * jnp.sinh(batch["features"][..., 0].astype(jnp.float32)) - batch["chi"]
    return jnp.where(mask, error - _masked_mean(error, mask)[:, None, None, None], 0)


def _masked_mean(values: Float[Array, "n x y z"], mask: Bool[Array, "n x y z"]) -> Float[Array, " n"]:
    axes = (1, 2, 3)
    return jnp.sum(jnp.where(mask, values, 0), axes) / jnp.maximum(jnp.sum(mask, axes), 1)


def make_optimiser(steps: int, rate: float) -> optax.GradientTransformation:
    """Make Muon for the kernels of convolutions, taps and channels in as rows, and Adam for the rest."""
    rows = lambda kernel: tuple(range(kernel.ndim - 1))

    def shaped(params):
        number = lambda p: optax.contrib.MuonDimensionNumbers(rows(p), (p.ndim - 1,)) if p.ndim == 5 else None
        return jax.tree.map(number, params)

    schedule = optax.join_schedules(
        [optax.linear_schedule(0.0, rate, 50), optax.cosine_decay_schedule(rate, max(steps - 50, 1))], [50]
    )
    adam = lambda step: 0.1 * schedule(step)
    muon = optax.contrib.muon(
        schedule,
        weight_decay=DECAY,
        muon_weight_dimension_numbers=shaped,
        adam_learning_rate=adam,
        consistent_rms=None,
    )
    return optax.chain(optax.clip_by_global_norm(5.0), muon)
