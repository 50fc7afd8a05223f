"""What the step is fed: for each step the indices of its samples, and, where maps are given, patches of them.

A patch follows from the seed and the sample's running number, step · batch + position, alone: nothing is kept between
steps, so a resumed run sees what an uninterrupted one would have, and each of several processes can cut its own rows.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qsmjax.training.config import TrainConfig

Batch = dict[str, NDArray]
EPOCH_STREAM, PATCH_STREAM = 1, 2
ALL = slice(None)
"""All rows of a batch."""


@dataclasses.dataclass(frozen=True)
class Maps:
    """A susceptibility map with its mask and, where it was measured, its field [ppm]; `head` names whose it is."""

    name: str
    chi: NDArray[np.float32]
    mask: NDArray[np.bool_]
    field: NDArray[np.float32] | None = None
    head: str = ""


@runtime_checkable
class Source(Protocol):
    """Where batches come from."""

    @property
    def description(self) -> str:
        """What a network trained on it must say that it was trained on."""

    def batch(self, step: int, rows: slice = ALL) -> Batch:
        """Return the arrays of a step: of the whole batch, or of some of its rows."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Heads drawn inside the step: the batch is only its indices."""

    config: TrainConfig

    @property
    def description(self) -> str:
        """Say that no scan was used."""
        return "heads drawn by qsmjax.simulate, no scan of anyone"

    def batch(self, step: int, rows: slice = ALL) -> Batch:
        """Return the indices."""
        return {"index": np.arange(self.config.batch, dtype=np.int32)[rows]}


class Patches:
    """Patches of maps, at random positions or on the paper's grid; measured and simulated ones may be mixed.

    On the grid every patch of every map comes once an epoch, in an order drawn for that epoch. Random patches have a
    voxel of the mask in their middle, unless the volume's face is too near; where some maps have measured fields and
    others none, `config.measured` is the share of those that have. On the grid each map has its own share.
    """

    def __init__(self, config: TrainConfig, maps: Sequence[Maps]) -> None:
        """Lay out the patches.

        Raises:
          ValueError: if there is no map, or one has no mask.
        """
        if not maps:
            raise ValueError("data must hold at least one map, got none")
        self.config = config
        self.maps = [_at_least(m, config.patch) for m in maps]
        self.inside = [np.flatnonzero(m.mask) for m in self.maps]
        for m, inside in zip(maps, self.inside):
            if inside.size == 0:
                raise ValueError(f"{m.name} must have voxels in its mask, got none")
        grids = [grid_corners(m.chi.shape, config.patch, config.grid) for m in self.maps]
        self.kinds = [[i for i, m in enumerate(maps) if (m.field is None) == without] for without in (False, True)]
        self.corners = [(i, corner) for i, corners in enumerate(grids) for corner in corners]

    @property
    def description(self) -> str:
        """Name the maps."""
        return f"{len(self.maps)} maps: " + ", ".join(m.name for m in self.maps)

    def batch(self, step: int, rows: slice = ALL) -> Batch:
        """Return the patches of a step."""
        index = np.arange(self.config.batch, dtype=np.int32)[rows]
        chosen = [self._choose(step * self.config.batch + int(i)) for i in index]
        cut = lambda array, corner: array[tuple(slice(c, c + p) for c, p in zip(corner, self.config.patch))]
        stack = lambda arrays: np.stack([cut(arrays[i], corner) for i, corner in chosen])
        batch = {
            "index": index,
            "chi": stack([m.chi for m in self.maps]),
            "mask": stack([m.mask for m in self.maps]),
        }
        if self.kinds[0]:
            batch["field"] = stack([np.zeros_like(m.chi) if m.field is None else m.field for m in self.maps])
        if all(self.kinds):
            batch["measured"] = np.asarray([self.maps[i].field is not None for i, _ in chosen])
        return batch

    def _choose(self, number: int) -> tuple[int, tuple[int, ...]]:
        if self.config.patches == "grid":
            epoch, place = divmod(number, len(self.corners))
            order = np.random.default_rng((self.config.seed, EPOCH_STREAM, epoch)).permutation(len(self.corners))
            return self.corners[order[place]]
        rng = np.random.default_rng((self.config.seed, PATCH_STREAM, number))
        measured, simulated = self.kinds
        share = self.config.measured if measured and simulated else float(bool(measured))
        kind = measured if rng.uniform() < share else simulated
        i = kind[int(rng.integers(len(kind)))]
        shape = self.maps[i].chi.shape
        middle = np.unravel_index(rng.choice(self.inside[i]), shape)
        corner = (int(np.clip(m - p // 2, 0, n - p)) for m, n, p in zip(middle, shape, self.config.patch))
        return i, tuple(corner)


def grid_corners(shape: Sequence[int], patch: Sequence[int], counts: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the corners of the paper's patches: `counts` along each axis, evenly over the volume.

    For 64³ patches at 6x8x7 positions in a head they overlap by about 66 %. Axes too short for that many positions
    have fewer.

    References:
      Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030.
    """
    axes = []
    for n, p, count in zip(shape, patch, counts):
        axes.append(sorted({round(i * (n - p) / max(count - 1, 1)) for i in range(count)}))
    return [(x, y, z) for x in axes[0] for y in axes[1] for z in axes[2]]


def _at_least(maps: Maps, shape: Sequence[int]) -> Maps:
    extra = [max(p - n, 0) for n, p in zip(maps.chi.shape, shape)]
    pad = lambda array: np.pad(array, [(e // 2, e - e // 2) for e in extra])
    field = None if maps.field is None else pad(maps.field)
    return dataclasses.replace(maps, chi=pad(maps.chi), mask=pad(maps.mask), field=field)
