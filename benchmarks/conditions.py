"""Hold inversions against one another where a scan is not what they were made for.

    python benchmarks/conditions.py LABELS_DIR --cache CACHE [--methods tkd tv learned qsmnet qsmnet_plus W.safetensors]
                                    [--topics background anisotropy tilt resolution] [--heads 11 12]

Prints a table a topic in Markdown, NRMSE [%] and xSIM of each method, means over the heads:

    background   harmonic field of air, bone and neck left in the local field, of a standard deviation that is a part of
                 the local field's own; and what V-SHARP leaves of the total field, judged on the mask that it leaves
    anisotropy   white matter magnetised more along its fibres than across [ppm]; the truth is the mean over directions
    tilt         the grid, and with it the head, turned against B0 [degrees]
    resolution   edge of the voxels [mm], of equal SNR each; the brain cut to a cube of 80 mm about its pallidum

Where nothing else is said voxels are of 1.6 mm, 3 T, SNR 90 in white matter, upright, without lesions. The subjects are
those of `benchmarks/heads.py`; networks are never trained on heads 11 to 14. CACHE keeps the scans. A method is one of
`qsmjax infer --method`, or a network's file.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from qsmjax.background import v_sharp
from qsmjax.cli.simulate import read_head
from qsmjax.inference.network import load_network
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.inversion.solution import Solution
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry
from qsmjax.pipeline import reference
from qsmjax.simulate.anatomy import Anatomy
from qsmjax.simulate.background import background_field
from qsmjax.simulate.lesions import Lesion
from qsmjax.simulate.posture import moved, posture
from qsmjax.simulate.scan import Scan, grid_around, scan
from qsmjax.study.scans import number_regions
from qsmjax.study.scores import judge, region_values

LESIONS = (Lesion("calcification", chi=-2.0, radius=2.0), Lesion("haemorrhage", chi=0.9, radius=5.0))
STRONG = 0.5
"""Susceptibility of either sign beyond which a voxel is a lesion's [ppm]."""
CUBE = 80.0
"""Edge of the part of the brain that is scanned at several resolutions [mm]."""


class Condition(NamedTuple):
    """How a head is scanned.

    Attributes:
      voxel: edge [mm].
      tilt: of the grid against B0 [degrees].
      turn: of the head under a grid that stays upright [degrees].
      anisotropy: of white matter [ppm].
      cube: edge of the part that is left of the brain [mm]; 0 for all.
      lesions: a calcification of -2 ppm and a haemorrhage of +0.9.
    """

    voxel: float = 1.6
    tilt: float = 0.0
    turn: float = 0.0
    anisotropy: float = 0.0
    cube: float = 0.0
    lesions: bool = False


class Scene(NamedTuple):
    """A scan: local field, truth [ppm], regions as the study numbers them, the field of what lies around [ppm]."""

    local: FieldMap
    chi: np.ndarray
    regions: np.ndarray
    outside: np.ndarray


def scene(labels: Path, number: int, condition: Condition, cache: Path) -> Scene:
    """Read a scan from the cache, or make it and put it there."""
    path = cache / f"{number:02d}-{'-'.join(f'{float(value):g}' for value in condition)}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **_simulate(labels, number, condition))
        partial.rename(path)
    with np.load(path, allow_pickle=False) as stored:
        a = dict(stored)
    grid = geometry(a["mask"].shape, a["voxel_size"], a["b0_dir"])
    local = field_map(
        a["field"],
        a["mask"],
        grid,
        noise=a["noise"],
        magnitude=a["magnitude"],
        radians_per_ppm=float(a["radians_per_ppm"]),
    )
    return Scene(local, a["chi"], a["regions"], a["outside"])


def _simulate(labels: Path, number: int, condition: Condition) -> dict[str, np.ndarray]:
    key = jax.random.fold_in(jax.random.key(2025), number)
    lesions = LESIONS if condition.lesions else ()
    head = read_head(key, labels / f"head_{number:02d}.nii.gz", lesions=lesions, age=50.0)
    if condition.cube:
        head = _cut(head, condition.cube)
    if condition.turn:
        head = moved(head, posture(head, 1, np.radians(condition.turn)))
    grid = grid_around(head, [condition.voxel] * 3, tilt=np.radians(condition.tilt))
    fine = condition.voxel / 2
    made: Scan = scan(key, head, grid, anisotropy=condition.anisotropy, fine_voxel=fine)
    local = made.local
    return {
        "field": np.asarray(local.field),
        "mask": made.mask,
        "noise": np.asarray(local.noise),
        "magnitude": np.asarray(local.magnitude),
        "radians_per_ppm": np.asarray(local.radians_per_ppm),
        "chi": made.chi,
        "regions": number_regions(made.classes, {name: (i,) for i, name in enumerate(head.names)}),
        "outside": background_field(key, head, grid.affine, grid.shape, made.mask),
        "voxel_size": np.asarray(local.geometry.voxel_size),
        "b0_dir": np.asarray(local.geometry.b0_dir),
    }


def _cut(head: Anatomy, edge: float) -> Anatomy:
    """Leave of the brain what lies in a cube about the middle of its pallidum."""
    middle = np.argwhere(head.classes == head.names.index("pallidum")).mean(0)
    half = edge / 2 / np.linalg.norm(head.affine[:3, :3], axis=0)
    kept = np.zeros_like(head.brain)
    kept[tuple(slice(max(int(m - h), 0), int(m + h)) for m, h in zip(middle, half))] = True
    return dataclasses.replace(head, brain=head.brain & kept)


@functools.cache
def method_of(name: str | Path) -> Callable[[FieldMap], Solution]:
    """Return an inversion by its name, or a network by its file."""
    return INVERSIONS[str(name)] if str(name) in INVERSIONS else load_network(name).invert


def figures(invert: Callable[[FieldMap], Solution], scan: FieldMap, scene: Scene) -> dict[str, float]:
    """Invert a scan and hold the map against its truth, both without their mean over the mask.

    Returns:
      What `study.scores.judge` does, and the recovered part: of the pallidum's contrast to white matter, of the
      susceptibility of calcification and haemorrhage where there are any.
    """
    mask = np.asarray(scan.mask)
    chi, truth = (np.asarray(reference(v, scan.mask, scan.mask).chi) for v in (invert(scan).chi, scene.chi))
    found = judge(chi, truth, mask, scan.geometry, scene.regions)
    contrasts = []
    for volume in (chi, truth):
        means = region_values(volume, scene.regions, mask)
        contrasts.append(means["pallidum"][0] - means["white matter"][0])
    found["pallidum"] = contrasts[0] / contrasts[1]
    for name, where in (("calcification", truth < -STRONG), ("haemorrhage", truth > STRONG)):
        if where.any():
            found[name] = float(chi[where].mean() / truth[where].mean())
    return found


def residue(part: float) -> Callable[[Scene], FieldMap]:
    """Leave background in the local field, a part of its standard deviation."""

    def leave(scene: Scene) -> FieldMap:
        mask = np.asarray(scene.local.mask)
        field = np.asarray(scene.local.field)
        outside = scene.outside - scene.outside[mask].mean()
        return scene.local.replace(field=field + mask * outside * (part * field[mask].std() / outside[mask].std()))

    return leave


def removed(scene: Scene) -> FieldMap:
    """Take all of the background out by V-SHARP."""
    return v_sharp(scene.local.replace(field=scene.local.field + scene.local.mask * scene.outside))


class Row(NamedTuple):
    """A line of a table: its title, the scan, and what is done to it."""

    title: str
    condition: Condition = Condition()
    change: Callable[[Scene], FieldMap] = lambda scene: scene.local


TOPICS: dict[str, Sequence[Row]] = {
    "background": [
        Row("none"),
        *[Row(f"{100 * part:g} %", change=residue(part)) for part in (0.1, 0.3, 1.0)],
        Row("V-SHARP", change=removed),
    ],
    "anisotropy": [Row(f"{value:g} ppm", Condition(anisotropy=value)) for value in (0.0, 0.01, 0.02, 0.04)],
    "tilt": [Row(f"{angle}°", Condition(tilt=float(angle))) for angle in (0, 15, 30, 45)],
    "resolution": [Row(f"{edge:g} mm", Condition(voxel=edge, cube=CUBE)) for edge in (2.0, 1.6, 1.2, 1.0, 0.8, 0.6)],
}


def mean_figures(invert: Callable[[FieldMap], Solution], row: Row, scenes: Sequence[Scene]) -> dict[str, float]:
    """Average the figures over the heads."""
    found = [figures(invert, row.change(scene), scene) for scene in scenes]
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}


def print_table(rows: Sequence[dict[str, str]]) -> None:
    """Print rows of the same keys as Markdown."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")
    print(flush=True)


def main() -> None:
    """Print a table a topic."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["tkd", "tv", "learned", "qsmnet", "qsmnet_plus"])
    parser.add_argument("--topics", nargs="+", choices=TOPICS, default=list(TOPICS))
    parser.add_argument("--heads", type=int, nargs="+", default=(11, 12))
    args = parser.parse_args()
    for topic in args.topics:
        table = []
        for row in TOPICS[topic]:
            scenes = [scene(args.labels, number, row.condition, args.cache) for number in args.heads]
            line = {topic: row.title}
            for name in args.methods:
                found = mean_figures(method_of(name), row, scenes)
                line[Path(name).stem] = f"{found['nrmse']:.1f} / {found['xsim']:.3f}"
                print(
                    topic, row.title, name, " ".join(f"{key} {value:.3f}" for key, value in found.items()), flush=True
                )
            table.append(line)
        print()
        print_table(table)


if __name__ == "__main__":
    main()
