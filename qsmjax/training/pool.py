"""Patches gathered on a GPU out of a pool that holds all scans: a host that has other work cuts them too slowly.

    patch[i, j, k] = pool[x_i + y_j + z_k]

A batch comes as the numbers x, y and z of each patch, which follow from the scan's place, the patch's corner and its
turn; the step gathers. Row 0 is that of what lies outside a scan.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from qsmjax.models.unrolled import FEATURES
from qsmjax.training.correction import inside_of, place
from qsmjax.training.devices import compiled
from qsmjax.training.sight import Seen

CHUNK = 1 << 18
"""Rows that are brought to the device at a time: of one size, so that nothing is compiled anew."""
SPARE, GROWTH = 1.2, 1.5
"""Room beyond what is expected, and by how much more there is once it was too little."""


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """A scan, and its first row in the pool."""

    seen: Seen
    first: int

    @property
    def end(self) -> int:
        """First row after it."""
        return self.first + self.seen.mask.size

    @functools.cached_property
    def inside(self) -> np.ndarray:
        """Voxels that patches are cut about."""
        return inside_of(self.seen.mask)


class Pool:
    """All scans that patches are cut of, on a device, voxel by voxel."""

    def __init__(self, expected: int) -> None:
        """Make room for so many voxels; for more there is made room when they come, which compiles the step anew."""
        # a device that has no room says so where it is waited for
        self._held, self._rows = 1, jax.block_until_ready(_empty(int(SPARE * expected) + CHUNK + 1))

    def holding(self, scans: Sequence[Placed]) -> dict[str, jax.Array]:
        """Bring to the device those of the scans that are not there yet, and return all rows.

        Args:
          scans: in the order of their rows; those that are there already may be among them.
        """
        for scan in scans:
            if scan.first >= self._held:
                self._bring(scan.seen, scan.first)
        return self._rows

    def _bring(self, seen: Seen, first: int) -> None:
        count = seen.mask.size
        while first + count + CHUNK > len(self._rows["chi"]):
            self._rows = _grown(self._rows, _empty(int(GROWTH * len(self._rows["chi"]))))
        parts = {"features": seen.features.reshape(count, FEATURES), "chi": seen.chi.ravel(), "mask": seen.mask.ravel()}
        for at in range(0, count, CHUNK):
            chunks = {name: _chunk(rows[at : at + CHUNK]) for name, rows in parts.items()}
            self._rows = _set(self._rows, chunks, first + at)
        self._held = first + count


def in_rows(scans: Sequence[Seen], first: int = 1) -> list[Placed]:
    """Give scans their places, one after the other, from a row on; row 0 is no scan's."""
    counts = [0, *np.cumsum([seen.mask.size for seen in scans], dtype=np.int64).tolist()]
    if first + counts[-1] >= 2**31:
        raise ValueError(f"scans must have fewer than 2147483648 voxels, got {counts[-1]}: take fewer subjects")
    return [Placed(seen, first + count) for seen, count in zip(scans, counts)]


def rows_of(rng: np.random.Generator, scan: Placed, edge: int) -> dict[str, np.ndarray]:
    """Choose a patch as `correction.cut` does, and return where its voxels are in place of them.

    Returns:
      "rows": x, y and z; "inside": which of them lie in the scan; voxel size and direction of B0.
    """
    seen, shape = scan.seen, scan.seen.mask.shape
    corner, order, signs = place(rng, scan.inside, shape, edge)
    along, strides = np.arange(edge), (shape[1] * shape[2], shape[2], 1)
    at = [corner[own] + (along if sign > 0 else along[::-1]) for own, sign in zip(order, signs)]
    inside = np.stack([places < shape[own] for places, own in zip(at, order)])
    rows = np.stack([places * strides[own] for places, own in zip(at, order)])
    rows[0] += scan.first
    return {
        "rows": np.where(inside, rows, 0).astype(np.int32),
        "inside": inside,
        "voxel_size": np.asarray(seen.voxel_size[order], np.float32),
        "b0_dir": np.asarray(seen.b0_dir[order] * signs, np.float32),
    }


def gathered(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the patches of a batch that says where they are, as `correction.cut` makes them; another as it is."""
    if "pool" not in batch:
        return batch
    rows, inside, pool = batch["rows"], batch["inside"], batch["pool"]
    over = lambda three: (three[:, 0, :, None, None], three[:, 1, None, :, None], three[:, 2, None, None, :])
    (x, y, z), (a, b, c) = over(rows), over(inside)
    at = jnp.where(a & b & c, x + y + z, 0)
    return {
        **{name: jnp.take(part, at, axis=0) for name, part in pool.items()},
        "voxel_size": batch["voxel_size"],
        "b0_dir": batch["b0_dir"],
    }


def _empty(count: int) -> dict[str, jax.Array]:
    return {
        "features": jnp.zeros((count, FEATURES), jnp.float16),
        "chi": jnp.zeros(count, jnp.float32),
        "mask": jnp.zeros(count, bool),
    }


def _chunk(rows: np.ndarray) -> np.ndarray:
    """Fill up the last rows of a scan: those that come next take the place of what is too much."""
    return np.pad(rows, [(0, CHUNK - len(rows)), *[(0, 0)] * (rows.ndim - 1)])


def _put(pool: dict[str, jax.Array], rows: dict[str, jax.Array], at: ArrayLike) -> dict[str, jax.Array]:
    place = lambda whole, part: jax.lax.dynamic_update_slice(whole, part, (at, *[0] * (whole.ndim - 1)))
    return jax.tree.map(place, pool, rows)


# the pool that goes in is given up
_set = compiled(_put, donate_argnums=0)
_grown = compiled(lambda pool, room: _put(room, pool, 0), donate_argnums=1)
