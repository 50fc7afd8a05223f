"""Make the four benchmark heads, and the example that the project ships.

    python benchmarks/heads.py LABELS_DIR OUT              the four heads, in the layout of the public benchmark
    python benchmarks/heads.py LABELS_DIR OUT --main       head_01 at 0.8x0.8x1.2 mm, 20 degrees oblique
    python benchmarks/heads.py LABELS_DIR OUT --example    OUT/field.nii.gz and its truth: the same head, 1.6x1.6x2 mm

    python benchmarks/heads.py LABELS_DIR OUT --picture    OUT/simulation.png: head_11 with air, bone and neck; its
                                                           regions' susceptibility is printed
    python benchmarks/heads.py LABELS_DIR OUT --regions 40 susceptibility of each region over 40 subjects of all label
                                                           maps: as drawn plainly, and as training draws them

LABELS_DIR holds head_01.nii.gz and so on. The four heads are made of heads 11 and 12, on which constants are chosen;
`--heads 13 14` makes those that judge. Each has veins, one calcification of -2 ppm and one haemorrhage of +0.9 ppm; the
example and its full-size brother have no lesions. For each it prints its grid, B0 direction, the local field's std, its
noise and the error of the discrete dipole model.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import nibabel as nib
import numpy as np

from qsmjax.cli.simulate import parameters, read_head, write_qsmci
from qsmjax.io.nifti import load_volume
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap
from qsmjax.report.simulation import scan_picture
from qsmjax.simulate.anatomy import Anatomy, anatomy
from qsmjax.simulate.lesions import Lesion
from qsmjax.simulate.scan import Scan, grid_around, scan
from qsmjax.simulate.tissue import TISSUES
from qsmjax.training.bank import draw_subject

LESIONS = (Lesion("calcification", chi=-2.0, radius=2.0), Lesion("haemorrhage", chi=0.9, radius=5.0))
DEEP_GREY = ("thalamus", "caudate", "putamen", "pallidum", "red_nucleus", "substantia_nigra", "dentate", "accumbens")


@dataclasses.dataclass(frozen=True)
class Case:
    """How a head is scanned: voxel size [mm], tilt [degrees], B0 [T], echo times [s], SNR of the first, lesions."""

    voxel_size: tuple[float, float, float]
    tilt: float
    b0: float
    te: tuple[float, ...]
    snr: float
    lesions: bool = True


TE_3T, TE_7T = (0.006, 0.012, 0.018, 0.024), (0.004, 0.008, 0.012, 0.016)
CASES = {
    "axial": Case((1.0, 1.0, 1.0), 0.0, 3.0, TE_3T, 100.0),
    "oblique": Case((1.0, 1.0, 1.0), 25.0, 3.0, TE_3T, 75.0),
    "1x1x2": Case((1.0, 1.0, 2.0), 0.0, 3.0, TE_3T, 62.0),
    "7T": Case((1.0, 1.0, 1.0), 0.0, 7.0, TE_7T, 110.0),
    "0.7mm": Case((0.7, 0.7, 0.7), 15.0, 3.0, TE_3T, 60.0),
}
FOUR = ("axial", "oblique", "1x1x2", "7T")
"""Those that every inversion is measured on; the fine one is the network's besides."""
MAIN = Case((0.8, 0.8, 1.2), 20.0, 3.0, TE_3T, 70.0, lesions=False)
EXAMPLE = Case((1.6, 1.6, 2.0), 20.0, 3.0, TE_3T, 200.0, lesions=False)


@dataclasses.dataclass(frozen=True)
class BenchmarkHead:
    """A noisy local field with its truth.

    Attributes:
      name: of the case.
      field_map: local field with noise map and magnitude.
      chi: truth [ppm], zero outside the mask.
      classes: tissue of each voxel.
      names: tissue of each number.
      scan: all that was simulated.
    """

    name: str
    field_map: FieldMap
    chi: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]
    scan: Scan

    @property
    def deep_grey(self) -> np.ndarray:
        """Where the deep grey nuclei are."""
        return np.isin(self.classes, [self.names.index(n) for n in DEEP_GREY]) & np.asarray(self.field_map.mask)


def benchmark_heads(
    labels_dir: str | Path, heads: Sequence[int] = (11, 12), *, noise: float = 1.0, seed: int = 0
) -> Iterator[BenchmarkHead]:
    """Make the four heads one after another, the given anatomies taking turns; `noise` multiplies the signal's."""
    for index, name in enumerate(FOUR):
        yield make_head(labels_dir, name, CASES[name], heads[index % len(heads)], noise=noise, seed=seed)


def make_head(
    labels_dir: str | Path, name: str, case: Case, number: int, *, noise: float = 1.0, seed: int = 0
) -> BenchmarkHead:
    """Make one head: the anatomy follows the head's number alone, the noise the seed too."""
    key = jax.random.fold_in(jax.random.key(2025), number)
    head = read_head(
        key, Path(labels_dir) / f"head_{number:02d}.nii.gz", lesions=LESIONS if case.lesions else (), age=50.0
    )
    grid = grid_around(head, case.voxel_size, tilt=np.radians(case.tilt))
    made = scan(jax.random.fold_in(key, seed), head, grid, b0=case.b0, te=case.te, snr=case.snr / noise)
    return BenchmarkHead(name, made.local, made.chi, made.classes, head.names, made)


def write_example(folder: Path, made: Scan) -> None:
    """Write field and truth as int16, zero outside the mask, and params.json."""
    for name, data in (("field", np.asarray(made.local.field)), ("chi_truth", made.chi)):
        step = float(np.abs(data).max()) / 32000
        # a value of zero would say that the voxel lies outside the mask
        whole = np.where(made.mask, np.rint(data / step), 0)
        whole = np.where(made.mask & (whole == 0), 1, whole).astype(np.int16)
        image = nib.Nifti1Image(whole, made.grid.affine)
        image.header.set_sform(made.grid.affine, 1)
        image.header.set_qform(made.grid.affine, 1)
        image.header.set_xyzt_units("mm", "sec")
        # nibabel works out a scale of its own when it saves scaled values: store the integers with ours
        image.header.set_slope_inter(step, 0)
        nib.save(image, folder / f"{name}.nii.gz")
    (folder / "params.json").write_text(json.dumps(parameters(made), indent=2) + "\n")


def describe(made: Scan) -> str:
    """Say what was made, in a line."""
    mask = made.mask
    again = np.asarray(forward_field(made.chi, made.geometry))[mask]
    truth = made.clean[mask]
    error = np.linalg.norm(again - again.mean() - truth + truth.mean()) / np.linalg.norm(truth - truth.mean())
    noise = np.median(np.asarray(made.local.noise)[mask])
    b0_dir = np.round(np.asarray(made.geometry.b0_dir), 3).tolist()
    return (
        f"{made.grid.shape} B0 {b0_dir} field std {truth.std():.4f} ppm, noise {noise:.5f} ppm, "
        f"model error {100 * error:.1f} %"
    )


def draw(labels: Path, out: Path) -> None:
    """Draw a scan with its background, and print mean and std of each region."""
    key = jax.random.fold_in(jax.random.key(2025), 11)
    head = read_head(key, labels / "head_11.nii.gz", lesions=LESIONS, age=50.0)
    made = scan(key, head, grid_around(head), te=TE_3T, snr=100.0, background=True)
    for number, name in enumerate(head.names):
        where = made.mask & (made.classes == number)
        if where.sum() > 20:
            print(f"| {name} | {where.sum()} | {made.chi[where].mean():.3f} | {made.chi[where].std():.3f} |")
    print(describe(made), f"total field std {made.total[made.mask].std():.3f} ppm")
    phase, magnitude = np.angle(made.signal[-1]), np.abs(made.signal[-1])
    volumes = {
        "susceptibility": (made.chi, -0.12, 0.2, "ppm"),
        "local field": (np.asarray(made.local.field), -0.04, 0.04, "ppm"),
        "phase, 24 ms": (phase, -3.14, 3.14, "rad"),
        "magnitude, 24 ms": (magnitude, 0, 0.8, ""),
    }
    scan_picture(volumes, out / "simulation.png")


def region_means(head: Anatomy) -> dict[str, tuple[float, float]]:
    """Return mean and std within each region of the brain [ppm relative to CSF]; no veins, no lesions."""
    csf = head.tissues[head.names.index("csf")].chi
    means = {}
    for number, (name, tissue) in enumerate(zip(head.names, head.tissues)):
        texture = tissue.texture * head.texture[head.brain & (head.classes == number)]
        if name in TISSUES and texture.size > 20:
            means[name] = (float(tissue.chi - csf + texture.mean()), float(texture.std()))
    return means


def print_regions(labels: Path, subjects: int) -> None:
    """Print mean and std over subjects of each region's susceptibility, drawn plainly and as training draws them."""
    paths = sorted(labels.glob("head_*.nii.gz"))
    plain, usual, every = [], [], []
    for number in range(subjects):
        path = paths[number % len(paths)]
        volume = load_volume(path)
        whole = np.rint(volume.data).astype(np.int32)
        plain.append(region_means(anatomy(jax.random.key(number), whole, volume.affine, veins=0)))
        head = draw_subject(np.random.default_rng((0, number)), path)
        every.append(region_means(head))
        # those that are to look like no head have fluid of any susceptibility
        fluid = [tissue.chi for name, tissue in zip(head.names, head.tissues) if name in ("csf", "ventricle")]
        usual += every[-1:] if np.abs(fluid).max() < 0.01 else []
    print(f"ppm relative to CSF: mean ± std over {subjects} subjects of {len(paths)} label maps; of those drawn as in")
    print(f"training, {len(usual)} look like heads\n| region | plain | within | training, heads | training, all |")
    print("|---|---|---|---|---|")
    for name in TISSUES:
        drawn = [np.array([means[name] for means in group if name in means]) for group in (plain, usual, every)]
        if min(map(len, drawn)) > 1:
            first, *others = [f"{each[:, 0].mean():.3f} ± {each[:, 0].std(ddof=1):.3f}" for each in drawn]
            print(f"| {name} | {first} | {drawn[0][:, 1].mean():.3f} | {' | '.join(others)} |", flush=True)


def main() -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--heads", type=int, nargs="+", default=(11, 12))
    parser.add_argument("--noise", type=float, default=1.0, help="times the noise of the signal")
    parser.add_argument("--main", action="store_true")
    parser.add_argument("--example", action="store_true")
    parser.add_argument("--picture", action="store_true")
    parser.add_argument("--regions", type=int, metavar="SUBJECTS", help="print the susceptibility of each region")
    args = parser.parse_args()
    start = time.perf_counter()
    if args.regions:
        print_regions(args.labels, args.regions)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    if args.picture:
        draw(args.labels, args.out)
        return
    if args.example or args.main:
        case = EXAMPLE if args.example else MAIN
        heads = iter([make_head(args.labels, "example" if args.example else "main", case, 1, noise=args.noise)])
    else:
        heads = benchmark_heads(args.labels, args.heads, noise=args.noise)
    for head in heads:
        if args.example:
            write_example(args.out, head.scan)
        else:
            write_qsmci(args.out / head.name, head.scan)
        print(f"{head.name}: {describe(head.scan)}, {time.perf_counter() - start:.0f} s", flush=True)
        start = time.perf_counter()


if __name__ == "__main__":
    main()
