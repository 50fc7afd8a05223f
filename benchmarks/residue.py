"""Print whether the learned inversion finds the background that is left in a local field, and what its removal gains.

    python benchmarks/residue.py LABELS_DIR --cache CACHE [--cases axial oblique 1x1x2 7T] [--voxel 1.6] [--noise 1 4]
    python benchmarks/residue.py --bank W/bank [--subjects 10]

The heads are those of `benchmarks/heads.py`, kept in CACHE. Their local field holds a part of the field of air, bone
and neck, or is what a removal makes of the total one. A line says what the start leaves of it as a multiple of what is
usual (found from 1.2 on, `models.unrolled.FOREIGN`): with the noise map, with none, with a third and twice the noise.
Then NRMSE and xSIM of the map, the field taken as it is and with what is found removed, with the noise map and without,
and QSMnet's.

--bank: the same multiples, and what is left over the noise itself, on subjects of a training bank, to which the field
of sources about the mask is added; no noise map.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from heads import CASES
from kept_heads import kept_head

from qsmjax.background import METHODS, v_sharp
from qsmjax.evaluation.metrics import nrmse, xsim
from qsmjax.inference.shipped import learned, qsmnet
from qsmjax.inversion.frame import MARGIN
from qsmjax.models import unrolled
from qsmjax.numerics.box import bounding_box, enter, frame_shape
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry
from qsmjax.training.bank import load_source
from qsmjax.training.totals import load_total

PARTS = (0.0, 0.1, 0.2, 0.3)
"""Of the local field's standard deviation that background is given."""
REMOVALS = ("vsharp", "vsharp, refined", "resharp")
LEVELS = (0.03, 0.1, 0.4)
"""Noise over the local field on a bank's subjects."""
RIM = 12
"""Voxels about the mask in which sources may lie."""


def start_leaves(*known: Any) -> tuple[jax.Array, jax.Array]:
    """Return what a start leaves, over what is usual and over the noise."""
    scan = jax.jit(unrolled.weigh)(*known)
    return _leaves(unrolled.start(scan), scan, known[3])


@jax.jit
def _leaves(begun, scan, noise) -> tuple[jax.Array, jax.Array]:
    multiple = unrolled.unexplained(begun, scan)
    level = unrolled.noise_level(scan.field, scan.mask, scan.geometry, noise)
    part = jnp.maximum(level / jnp.std(scan.field, where=scan.mask), unrolled.LEAST_PART)
    return multiple, multiple * unrolled.USUAL * part**unrolled.RISE


def leaves(scan: FieldMap) -> tuple[float, float]:
    """Return the same of a field map."""
    box = bounding_box(scan.mask)
    shape = frame_shape(box, MARGIN, scan.geometry.voxel_size)
    field, mask, noise, magnitude = (
        enter(part, box, shape) for part in (scan.field, scan.mask, scan.noise, scan.magnitude)
    )
    multiple, left = start_leaves(field, mask, dataclasses.replace(scan.geometry, shape=shape), noise, magnitude)
    return float(multiple), float(left)


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels_dir", type=Path, nargs="?")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["axial", "oblique", "1x1x2", "7T"])
    parser.add_argument("--numbers", type=int, nargs="+", default=(11, 12), help="of the anatomies")
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0])
    parser.add_argument("--voxel", type=float, default=1.6)
    parser.add_argument("--bank", type=Path)
    parser.add_argument("--subjects", type=int, default=10)
    args = parser.parse_args()
    if args.bank:
        on_subjects(sorted(args.bank.glob("[0-9]*_0.npz"))[: args.subjects])
        return
    for case in args.cases:
        head = kept_head(args.labels_dir, case, args.cache, heads=tuple(args.numbers), voxel=args.voxel)
        for level in args.noise:
            on_head(f"{case}, noise x{level:g}", head.noisy(level), head)


def on_head(title: str, scan: FieldMap, head) -> None:
    """Print a head's lines."""
    mask, true = np.asarray(head.mask), np.asarray(scan.field)
    outside = np.where(mask, head.arrays["outside"] - head.arrays["outside"][mask].mean(), 0)
    strength, total = true[mask].std() / outside[mask].std(), scan.replace(field=scan.field + head.arrays["outside"])
    given = {f"{part:.0%} left": scan.replace(field=jnp.asarray(true + part * strength * outside)) for part in PARTS}
    given |= {"vsharp": v_sharp(total), "vsharp, refined": v_sharp(total, refinements=2)}
    given |= {"resharp": METHODS["resharp"](total)}
    print(title, flush=True)
    for name, local in given.items():
        assert local.noise is not None
        blind = local.replace(noise=None, magnitude=None)
        ways = (local, blind, local.replace(noise=local.noise / 3), local.replace(noise=2 * local.noise))
        multiples = " ".join(f"{leaves(way)[0]:.2f}" for way in ways)
        inside = np.asarray(local.mask)
        truth = np.where(inside, head.chi - head.chi[inside].mean(), 0)

        def held(chi, inside=inside, truth=truth):
            # a map is known up to a constant, and xSIM is not
            chi = np.where(inside, chi - np.mean(np.asarray(chi)[inside]), 0)
            return f"{float(nrmse(chi, truth, inside)):.1f}/{float(xsim(chi, truth, inside)):.3f}"

        told = []
        for way in (local, blind):
            as_is, removed = learned(way, residue=False), learned(way)
            told.append(f"{held(as_is.chi)} -> {'as it is' if removed.local is None else held(removed.chi)}")
        print(
            f"  {name:16} field {float(nrmse(local.field, true, inside)):4.1f} %, {multiples}; map {told[0]}, without "
            f"noise map {told[1]}, QSMnet {held(qsmnet(local).chi)}",
            flush=True,
        )


def on_subjects(paths: list[Path]) -> None:
    """Print what a start leaves over the noise on a bank's subjects: the least and the most of them."""
    found: dict[float, list[list[float]]] = {level: [] for level in LEVELS}
    for path in paths:
        rng = np.random.default_rng(3)
        with np.load(path, allow_pickle=False) as file:
            load = load_source if "signal" in file.files else load_total
        subject = load(path)
        mask, chi = np.pad(subject.mask, RIM), np.pad(np.where(subject.mask, subject.chi, 0), RIM)
        grid = geometry(mask.shape, subject.voxel_size, getattr(subject, "b0_dir", (0, 0, 1)))
        field_of = lambda source, grid=grid: np.asarray(forward_field(source.astype(np.float32), grid))
        shell = scipy.ndimage.binary_dilation(mask, iterations=6) & ~scipy.ndimage.binary_dilation(mask, iterations=2)
        rough = scipy.ndimage.gaussian_filter(rng.standard_normal(mask.shape), rng.uniform(1.5, 6)) * shell
        clean, outside = field_of(chi), field_of(rough)
        size = clean[mask].std()
        outside = (outside - outside[mask].mean()) * size / outside[mask].std()
        for level in LEVELS:
            noise = level * size * rng.standard_normal(mask.shape)
            scans = [field_map((clean + part * outside + noise) * mask, mask, grid) for part in PARTS]
            found[level].append([leaves(scan)[1] for scan in scans])
        print(f"{path.name}: {[np.round(found[level][-1], 2).tolist() for level in LEVELS]}", flush=True)
    for level, rows in found.items():
        usual = unrolled.USUAL * max(level, unrolled.LEAST_PART) ** unrolled.RISE
        ranges = [f"{low:.2f} to {high:.2f}" for low, high in zip(np.min(rows, 0), np.max(rows, 0))]
        print(f"noise {level:g} of the field, usual {usual:.2f}; {', '.join(f'{p:.0%}' for p in PARTS)}: {ranges}")


if __name__ == "__main__":
    main()
