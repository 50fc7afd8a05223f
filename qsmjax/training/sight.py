"""What a stage of the learned inversion sees of scans: whole ones, by their own dipole, once for all steps.

W/stage_0/seen/    what the physics sees of the start
W/stage_1/seen/    of the map that the first stage made of it; and so on
"""

from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from qsmjax.inversion.frame import MARGIN
from qsmjax.io.aside import write_aside
from qsmjax.models import unrolled
from qsmjax.models.correction import Correction, correct
from qsmjax.numerics.box import bounding_box, frame_shape
from qsmjax.numerics.kspace import pad_to
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.training.bank import load_source
from qsmjax.training.scans import Example, draw_scan, rounded
from qsmjax.training.totals import load_total

PROBE = "probe.npy"
"""What is seen of a small scan that never changes: when that is something else, all that is kept is stale."""
READERS = 6
"""Scans that are read, looked at and kept at a time where not the CPU works."""


class Seen(NamedTuple):
    """A scan as the network sees it, in the box of its mask.

    Attributes:
      features: from `models.unrolled.look`, half precision.
      chi: truth [ppm].
      mask: the brain's.
      voxel_size: [mm].
      b0_dir: in voxel axes.
    """

    features: Float[np.ndarray, "x y z f"]
    chi: Float[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    voxel_size: Float[np.ndarray, "3"]
    b0_dir: Float[np.ndarray, "3"]


class Framed(NamedTuple):
    """A scan in its frame, weighed, with its truth [ppm] and its mask in the box in the middle of that."""

    scan: unrolled.Scan
    chi: Float[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]


def framed(example: Example) -> Framed:
    """Bring a scan to its frame."""
    box = bounding_box(example.mask)
    x, y, z = (rounded(n) for n in frame_shape(box, MARGIN))
    grid = geometry((x, y, z), example.voxel_size, example.b0_dir)
    enter = lambda part: pad_to(jnp.asarray(part[box]), (x, y, z))
    noise = enter(example.noise) if example.noise.any() else None
    weighed = _weigh(enter(example.field), enter(example.mask), grid, noise, None)
    return Framed(weighed, example.chi[box].astype(np.float32), example.mask[box])


def see(known: Framed, begun: unrolled.Start | None = None) -> Seen:
    """Let the physics look at a scan.

    Args:
      known: the scan.
      begun: the maps that are looked at, in the box; None for the start.
    """
    scan, chi, mask = known
    in_frame = lambda part: pad_to(part, scan.field.shape)
    made = np.asarray(_look(unrolled.start(scan) if begun is None else unrolled.Start(*map(in_frame, begun)), scan))
    first = [(a - b) // 2 for a, b in zip(scan.field.shape, mask.shape)]
    features = made[tuple(slice(a, a + b) for a, b in zip(first, mask.shape))]
    grid = scan.geometry
    return Seen(features.astype(np.float16), chi, mask, np.asarray(grid.voxel_size), np.asarray(grid.b0_dir))


_weigh, _look = jax.jit(unrolled.weigh), jax.jit(unrolled.look)


def see_next(known: Framed, seen: Seen, network: Correction, params: Any) -> Seen:
    """Let the physics look at the map that a stage makes of what it saw."""
    begun, _ = correct_seen(seen, network, params)
    return see(known, begun)


def correct_seen(seen: Seen, network: Correction, params: Any) -> tuple[unrolled.Start, Float[np.ndarray, "x y z"]]:
    """Return the maps that a stage makes of what it saw [ppm], and its spread [log ppm]; zero outside the mask."""
    x, y, z = seen.mask.shape
    features = jnp.pad(seen.features.astype(np.float32), [*[(0, rounded(n) - n) for n in (x, y, z)], (0, 0)])
    numbers = unrolled.about(jnp.asarray(seen.voxel_size), jnp.asarray(seen.b0_dir))
    change, spread = correct(network, params, features, numbers)
    inside = lambda part: jnp.where(seen.mask, part[:x, :y, :z], 0)
    return unrolled.Start(*map(inside, unrolled.corrected(features, change))), np.asarray(inside(spread))


def see_bank(
    bank: Path,
    folder: Path,
    subjects: Iterable[int],
    before: Mapping[str, Seen],
    network: Correction,
    params: Any,
    *,
    scans: int = 1,
    seed: int = 0,
) -> Generator[dict[str, Seen]]:
    """See scans of the sources of a bank's subjects, one after the other; what has been seen is kept in a folder.

    It is looked at again if the physics, or the stage before, would make something else of a small scan than when it
    was kept, by more than a hundredth. Another bank or seed needs another folder.

    Args:
      bank: folder of sources, or of scans.
      folder: takes a file a scan.
      subjects: their numbers; each is in the bank once it is handed out.
      before: what the stage before saw of them; empty for the first.
      network: of the stage before.
      params: its parameters; None for the first stage.
      scans: of each source; of a scan there is but itself.
      seed: of the scans.

    Yields:
      What was seen of each, by the source's name and the scan's number.
    """
    begin_seeing(folder, network, params)
    seen = lambda name: see_scan(bank, folder, name, before.get(name), network, params, seed=seed)
    with ThreadPoolExecutor(1 if jax.default_backend() == "cpu" else READERS) as pool:
        for subject in subjects:
            stems = [path.stem for path in sorted(bank.glob(f"{subject:04d}_*.npz"))]
            names = [name for stem in stems for name in _scans_of(stem, scans)]
            yield dict(zip(names, pool.map(seen, names)))


def see_scan(
    bank: Path, folder: Path, name: str, before: Seen | None, network: Correction, params: Any, *, seed: int
) -> Seen:
    """See one scan, by its source's name and its number, or read what is kept of it."""
    kept = folder / f"{name}.npz"
    if not kept.exists():
        known = framed(take_scan(bank, name, seed))
        made = see(known) if before is None else see_next(known, before, network, params)
        with write_aside(kept) as temporary, temporary.open("wb") as file:
            np.savez(file, **made._asdict())
    with np.load(kept, allow_pickle=False) as parts:
        return Seen(**parts)


def _scans_of(stem: str, scans: int) -> list[str]:
    """Name the scans that are drawn of a source; a scan is one itself."""
    return [stem] if stem.count("_") == 2 else [f"{stem}_{n}" for n in range(scans)]


def take_scan(bank: Path, name: str, seed: int) -> Example:
    """Read a scan from a bank that holds it, or draw it of its source."""
    if (path := bank / f"{name}.npz").exists():
        return load_total(path)
    source, _, number = name.rpartition("_")
    rng = np.random.default_rng((seed, *map(int, source.split("_")), int(number)))
    return draw_scan(rng, load_source(bank / f"{source}.npz"))


def begin_seeing(folder: Path, network: Correction, params: Any) -> None:
    """Make the folder; empty it if its probe is not what would be seen today, and keep today's."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = framed(_probe())
    made = see(probe)
    if params is not None:
        made = see_next(probe, made, network, params)
    today, kept = made.features.astype(np.float32), folder / PROBE
    if kept.is_file():
        before = np.load(kept, allow_pickle=False)
        if before.shape == today.shape and np.allclose(before, today, rtol=1e-2, atol=1e-2):
            return
    for path in folder.glob("*.npz"):
        path.unlink()
    with write_aside(kept) as temporary, temporary.open("wb") as file:
        np.save(file, today, allow_pickle=False)


def _probe() -> Example:
    rng, shape = np.random.default_rng(0), (24, 24, 24)
    mask = np.linalg.norm(np.indices(shape) - 11.5, axis=0) < 9
    chi = np.where(mask, 0.05 * rng.standard_normal(shape), 0).astype(np.float32)
    noise = np.where(mask, 1e-3, 0).astype(np.float32)
    grid = geometry(shape, (1.0, 1.0, 1.5), (0.6, 0.0, 0.8))
    field = np.asarray(forward_field(chi, grid)) + 1e-3 * rng.standard_normal(shape)
    size, b0_dir = np.asarray(grid.voxel_size), np.asarray(grid.b0_dir)
    return Example(np.where(mask, field, 0).astype(np.float32), chi, mask, noise, size, b0_dir)
