"""Simulate the benchmark heads once, keep them on disk, and scan them with any noise and any direction of B0.

A head is simulated with a twentieth of its noise and kept as .npz. Noise is then drawn on it:

    field = clean + level std n,    magnitude = |m + level sigma (n + i n)|,    noise map = level std m / magnitude

with std the noise map of a weighted line through the echoes at level 1, and sigma what the case's SNR in white matter
asks for. Sweeps over noise and weight so cost no simulation.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from heads import CASES, DEEP_GREY, FOUR, Case, make_head

from qsmjax.cli.simulate import read_head
from qsmjax.evaluation.metrics import Labels
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry
from qsmjax.physics.units import radians_per_ppm
from qsmjax.simulate.background import background_field
from qsmjax.study.cohort import KINDS

QUIET = 0.05
"""Noise of the scan that is kept, as a part of the case's own."""

HAEMORRHAGE = 0.6
"""Susceptibility that a haemorrhage alone has [ppm]: veins have up to 0.42."""

LABELS = Labels(deep_grey=(1,), tissue=(2,), blood=3, calcification=4)
"""Numbers of the label map that goes with a kept head."""


@dataclasses.dataclass(frozen=True)
class KeptHead:
    """A head on disk: everything but the noise.

    Attributes:
      name: of the case.
      arrays: clean, outside, std, magnitude, chi, source, mask, labels, voxel_size, b0_dir, as in the file; outside is
        the field of what surrounds the brain, which makes the total field of the local one.
    """

    name: str
    arrays: dict[str, np.ndarray]

    @property
    def mask(self) -> np.ndarray:
        """The brain."""
        return self.arrays["mask"]

    @property
    def chi(self) -> np.ndarray:
        """Truth [ppm], zero outside the mask."""
        return self.arrays["chi"]

    @property
    def labels(self) -> np.ndarray:
        """Tissues, numbered as `LABELS` says."""
        return self.arrays["labels"]

    @property
    def lesions(self) -> np.ndarray:
        """Calcification and haemorrhage, numbered as `study.lesions` has them."""
        code = lambda kind: 10 * (KINDS.index(kind) + 1)
        lesions = np.where(self.chi > HAEMORRHAGE, code("haemorrhage"), 0)
        return np.where(self.labels == LABELS.calcification, code("calcification"), lesions)

    @property
    def voxel_size(self) -> np.ndarray:
        """[mm]."""
        return self.arrays["voxel_size"]

    def noisy(self, level: float = 1.0, *, clean: np.ndarray | None = None, b0_dir=None, seed: int = 0) -> FieldMap:
        """Draw the noise: `level` times the case's.

        Args:
          level: factor of the signal's noise.
          clean: another field to draw it on, by default the head's local one.
          b0_dir: the direction that made that field.
          seed: of the draw.
        """
        case, rng = CASES[self.name], np.random.default_rng(seed)
        std = np.minimum(level * self.arrays["std"], _largest_std(case))
        field = self.arrays["clean"] if clean is None else clean
        magnitude = self.arrays["magnitude"]
        sigma = level * np.median(magnitude[self.labels == LABELS.tissue[0]]) / case.snr
        noise = rng.normal(scale=sigma, size=(2, *magnitude.shape))
        seen = np.abs(magnitude + noise[0] + 1j * noise[1])
        return field_map(
            field + std * rng.normal(size=std.shape),
            self.mask,
            geometry(self.mask.shape, self.voxel_size, self.arrays["b0_dir"] if b0_dir is None else b0_dir),
            noise=std * np.clip(magnitude / np.maximum(seen, 1e-9), 0.1, 10),
            magnitude=seen,
            radians_per_ppm=radians_per_ppm(case.b0, float(np.mean(case.te))),
        )


def head_arguments(
    about: str | None, *, cases: Sequence[str] = FOUR, noise: Sequence[float] = (1.0,)
) -> argparse.ArgumentParser:
    """Make the parser of a benchmark on kept heads: where they are, which, and how noisy; by default those given."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels_dir", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(cases))
    parser.add_argument("--numbers", type=int, nargs="+", default=(11, 12), help="of the anatomies")
    parser.add_argument("--noise", type=float, nargs="+", default=list(noise))
    return parser


def kept_head(
    labels_dir: str | Path, name: str, cache: str | Path, *, heads: tuple[int, ...] = (11, 12), voxel: float = 1.0
) -> KeptHead:
    """Read a head from the cache, or make it and put it there.

    Args:
      labels_dir: holds head_11.nii.gz and so on.
      name: of the case.
      cache: folder of the .npz files.
      heads: anatomies that take turns over the cases.
      voxel: factor of the case's voxel size.
    """
    number = heads[list(CASES).index(name) % len(heads)]
    path = Path(cache) / f"{name}-{number:02d}-{voxel:g}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **_simulate(labels_dir, name, number, voxel))
        partial.rename(path)
    with np.load(path, allow_pickle=False) as stored:
        return KeptHead(name, dict(stored))


def _simulate(labels_dir: str | Path, name: str, number: int, voxel: float) -> dict[str, np.ndarray]:
    case = CASES[name]
    x, y, z = (voxel * d for d in case.voxel_size)
    case = dataclasses.replace(case, voxel_size=(x, y, z))
    made = make_head(labels_dir, name, case, number, noise=QUIET)
    local = made.field_map
    numbers = {"white": 2, "vein": 3} | dict.fromkeys(DEEP_GREY, 1)
    labels = np.zeros(made.classes.shape, np.uint8)
    for tissue, value in numbers.items():
        labels[made.classes == made.names.index(tissue)] = value
    head = read_head(jax.random.key(number), Path(labels_dir) / f"head_{number:02d}.nii.gz")
    grid, mask = made.scan.grid, np.asarray(local.mask)
    outside = background_field(jax.random.key(number), head, grid.affine, grid.shape, mask)
    # lesions are painted over the tissue, not labelled; nothing else comes near to half of a calcification's chi
    labels[made.chi < made.chi.min() / 2] = 4
    return {
        "clean": made.scan.clean,
        "outside": outside,
        "std": np.asarray(local.noise) / QUIET,
        "magnitude": np.asarray(local.magnitude),
        "chi": made.chi,
        "source": made.scan.source,
        "mask": mask,
        "labels": labels,
        "voxel_size": np.asarray(local.geometry.voxel_size),
        "b0_dir": np.asarray(local.geometry.b0_dir),
    }


def _largest_std(case: Case) -> float:
    """Give the deviation of a phase known to no better than a turn, over the time between the echoes [ppm]."""
    return float(np.pi / np.sqrt(3) / radians_per_ppm(case.b0, 1.0) / np.ptp(case.te))
