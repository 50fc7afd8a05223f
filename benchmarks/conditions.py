"""Hold inversions against one another where a scan is not what they were made for.

    python benchmarks/conditions.py LABELS_DIR --cache CACHE [--methods tkd tv learned qsmnet qsmnet_plus W.safetensors]
                                    [--topics background anisotropy tilt resolution] [--heads 11 12]

Prints a table a topic in Markdown, NRMSE [%] and xSIM of each method, means over the heads:

    background   harmonic field of air, bone and neck left in the local field, of a standard deviation that is a part of
                 the local field's own; and what V-SHARP leaves of the total field, judged on the mask that it leaves
    anisotropy   white matter magnetised more along its fibres than across [ppm]; the truth is the mean over directions
    tilt         the grid, and with it the head, turned against B0 [degrees]
    resolution   edge of the voxels [mm], of equal SNR each; the brain cut to a cube of 64 mm about its pallidum

Where nothing else is said voxels are of 1.6 mm, 3 T, SNR 90 in white matter, upright, without lesions. The subjects are
those of `benchmarks/heads.py`; networks are never trained on heads 11 to 14. A method is a name of
`qsmjax infer --method`, or a network's file. CACHE keeps the scans, and the figures by the hash of a network's weights:
with new weights the same command computes theirs alone.
"""

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from qsmjax.background import v_sharp
from qsmjax.cli.simulate import read_head
from qsmjax.inference.network import load_network
from qsmjax.inference.shipped import INVERSIONS, NETWORKS, shipped_network
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
CUBE = 64.0
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


class Row(NamedTuple):
    """A line of a table.

    Attributes:
      title: of the line.
      condition: of the scan.
      residue: standard deviation of the background that is left, as a part of the local field's.
      v_sharp: whether the field is what V-SHARP makes of the total one.
    """

    title: str
    condition: Condition = Condition()
    residue: float = 0.0
    v_sharp: bool = False

    def scan(self, scene: Scene) -> FieldMap:
        """Return what is inverted."""
        local = scene.local
        field, mask = np.asarray(local.field), np.asarray(local.mask)
        if self.v_sharp:
            return v_sharp(local.replace(field=field + mask * scene.outside))
        if not self.residue:
            return local
        outside = mask * (scene.outside - scene.outside[mask].mean())
        return local.replace(field=field + outside * (self.residue * field[mask].std() / outside[mask].std()))


TOPICS: dict[str, Sequence[Row]] = {
    "background": [
        Row("none"),
        *[Row(f"{100 * part:g} %", residue=part) for part in (0.1, 0.3)],
        Row("V-SHARP", v_sharp=True),
    ],
    "anisotropy": [Row(f"{value:g} ppm", Condition(anisotropy=value)) for value in (0.0, 0.01, 0.02)],
    "tilt": [Row(f"{angle}°", Condition(tilt=float(angle))) for angle in (0, 15, 30, 45)],
    "resolution": [Row(f"{edge:g} mm", Condition(voxel=edge, cube=CUBE)) for edge in (2.0, 1.5, 1.0, 0.8, 0.6)],
}


def method_of(name: str) -> tuple[Callable[[FieldMap], Solution], str]:
    """Return an inversion by its name, or a network by its file; and what tells it from another."""
    if name not in NETWORKS and name in INVERSIONS:
        return INVERSIONS[name], name
    network = shipped_network(name) if name in NETWORKS else load_network(name)
    # what is left of a background goes to the other weights
    origins = [network.card, *([shipped_network("learned_total").card] if name == "learned" else [])]
    return network.invert, " ".join(str(card["sha256"]) for card in origins)


def figures(name: str, row: Row, number: int, labels: Path, cache: Path) -> dict[str, float]:
    """Hold a method's map against the truth, or read from the cache what came of that."""
    invert, origin = method_of(name)
    key = json.dumps([number, *row.condition, row.residue, row.v_sharp, origin])
    path = cache / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        found = scene(labels, number, row.condition, cache)
        path.write_text(json.dumps(compare(invert, row.scan(found), found)))
    return json.loads(path.read_text())


def compare(invert: Callable[[FieldMap], Solution], scan: FieldMap, scene: Scene) -> dict[str, float]:
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


def mean_figures(name: str, row: Row, numbers: Sequence[int], labels: Path, cache: Path) -> dict[str, float]:
    """Average the figures over the heads."""
    found = [figures(name, row, number, labels, cache) for number in numbers]
    return {key: float(np.mean([f[key] for f in found])) for key in found[0]}


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
            line = {topic: row.title}
            for name in args.methods:
                found = mean_figures(name, row, args.heads, args.labels, args.cache)
                line[Path(name).stem] = f"{found['nrmse']:.1f} / {found['xsim']:.3f}"
                each = " ".join(f"{key} {value:.3f}" for key, value in found.items())
                print(topic, row.title, name, each, flush=True)
            table.append(line)
        print()
        print_table(table)


if __name__ == "__main__":
    main()
