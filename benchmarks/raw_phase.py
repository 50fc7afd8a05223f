"""Print how well raw phase becomes the total field, and then a map, on heads that `qsmjax.simulate.scan` scans.

    python benchmarks/raw_phase.py LABELS.nii.gz [MORE ..] --cache CACHE [--only field chi] [--voxel 2 2 2]
                                   [--repeats 20] [--echoes even uneven two] [--noise 1]
                                   [--removals tfi joint vsharp]

LABELS are whole-head label maps (FreeSurfer and SynthSeg numbers, 1 mm). Each is scanned at 3 T with air, bone and
neck, a shim's residue, a coil's phase and R2* decay, on voxels of at most 0.55 mm, and cut to the scan's band; noise is
drawn here, signal-to-noise 90 in white matter at 3.7 ms. Scans are kept in CACHE as .npz.

field: RMSE of the total field against the truth, its mean over the mask removed, over the Cramer-Rao bound of the
noise-free echoes, per voxel over the realisations (bar: within 1.5 in 95 % of the mask). Phase turns within a voxel
near veins and bone, and no fit sees the mean field there: the same against the noise-free fit says what noise alone
does. Voxels off by a turn, and those of them 15 mm away from air and bone (bar 0). Noise told over seen (bar 0.8 to
1.2).

chi: xSIM and NRMSE of the pipeline from raw phase, beside the same inversion from the true local field with that noise,
both on the mask that the pipeline leaves (bar: 80 % of its xSIM); in place of `learned_total`, which is made for what
`tfi` leaves, `learned` from the true one.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import jax
import numpy as np
import scipy.ndimage

from qsmjax.cli.simulate import read_head
from qsmjax.evaluation.metrics import nrmse, xsim
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.phase.echoes import fit_echoes
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.physics.units import radians_per_ppm
from qsmjax.pipeline import BACKGROUNDS, local_field_to_chi, total_field
from qsmjax.simulate.scan import grid_around, scan

B0 = 3.0
ECHOES = {
    "even": (0.004, 0.012, 0.020, 0.028),
    "uneven": (0.0037, 0.0111, 0.0137, 0.0243, 0.0311),
    "two": (0.006, 0.018),
}
ALL = tuple(sorted({te for times in ECHOES.values() for te in times}))


@dataclasses.dataclass(frozen=True)
class Head:
    """Noise-free echoes at all times, and the truth; `far` is away from air and bone."""

    echoes: np.ndarray
    total: np.ndarray
    local: np.ndarray
    chi: np.ndarray
    mask: np.ndarray
    far: np.ndarray
    affine: np.ndarray
    sigma: float

    def signal(self, te) -> np.ndarray:
        return self.echoes[[ALL.index(t) for t in te]]


def simulate(path: Path, voxel: tuple[float, ...], cache: Path) -> Head:
    """Scan a head, or read the scan that was kept."""
    kept = cache / f"raw-{path.name.split('.')[0]}-{'x'.join(f'{d:g}' for d in voxel)}.npz"
    if not kept.exists():
        head = read_head(jax.random.key(7), path)
        grid = grid_around(head, voxel)
        made = scan(jax.random.key(8), head, grid, b0=B0, te=ALL, background=True)
        solid = np.isin(made.classes, [head.names.index(name) for name in ("air", "bone") if name in head.names])
        far = scipy.ndimage.distance_transform_edt(~solid, sampling=voxel) > 15
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            kept, echoes=made.echoes, total=made.total, local=made.clean, chi=made.chi, mask=made.mask, far=far,
            affine=grid.affine, sigma=made.sigma,
        )  # fmt: skip
    with np.load(kept, allow_pickle=False) as stored:
        return Head(**{name: stored[name] for name in stored.files} | {"sigma": float(stored["sigma"])})


def noisy(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return (signal + sigma * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))).astype(np.complex64)


def bound(signal: np.ndarray, te, sigma: float) -> np.ndarray:
    """The Cramér-Rao bound of the field where the initial phase is free [ppm]."""
    c, power = np.asarray(radians_per_ppm(B0, np.asarray(te, np.float32)))[:, None, None, None], np.abs(signal) ** 2
    middle = np.sum(power * c, axis=0) / np.maximum(np.sum(power, axis=0), 1e-12)
    return sigma / np.sqrt(np.maximum(np.sum(power * (c - middle) ** 2, axis=0), 1e-12))


def bench_field(head: Head, repeats: int, names: list[str]) -> None:
    """Fit noisy echoes many times."""
    for name in names:
        te = ECHOES[name]
        clean, rng, mask = head.signal(te), np.random.default_rng(0), head.mask
        least = bound(clean, te, head.sigma)[mask]
        perfect = np.asarray(fit_echoes(clean, te, B0, mask).field)[mask]
        fields, told, start = [], [], time.process_time()
        for _ in range(repeats):
            fit = fit_echoes(noisy(clean, head.sigma, rng), te, B0, mask)
            fields.append(np.asarray(fit.field)[mask])
            told.append(np.asarray(fit.noise)[mask])
        taken = (time.process_time() - start) / repeats
        fields, told = np.stack(fields), np.stack(told)
        turn = float(2 * np.pi / radians_per_ppm(B0, np.diff(te).min()))
        print(f"field, {name} echoes {'/'.join(f'{1000 * t:.1f}' for t in te)} ms, {mask.sum()} voxels, "
              f"{taken:.1f} s of the processors a fit", flush=True)  # fmt: skip
        for what, truth in (("the truth", head.total[mask]), ("the noise-free fit", perfect)):
            error = fields - truth
            off = (np.abs(error - np.median(error, axis=1, keepdims=True)) > 0.5 * turn).any(0)
            # the mean without voxels off by a turn, which would carry all others along
            error = error - error[:, ~off].mean(axis=1, keepdims=True)
            ratio = np.sqrt(np.mean(error**2, axis=0)) / least
            print(f"  to {what}: within 1.5 Cramer-Rao bounds {100 * np.mean(ratio < 1.5):.1f} % (bar 95), median "
                  f"{np.median(ratio):.3f}; off by a turn {off.sum()}, away from bone and air "
                  f"{(off & head.far[mask]).sum()} of {head.far[mask].sum()} (bar 0)", flush=True)  # fmt: skip
        apart = perfect - head.total[mask]
        print(f"  noise-free fit less the truth: median {1000 * np.median(np.abs(apart - np.median(apart))):.2f} ppb, "
              f"bound {1000 * np.median(least):.2f} ppb")  # fmt: skip
        spread = np.std(fields, axis=0, ddof=1)
        print(f"  noise told / seen: {np.median(np.sqrt(np.mean(told**2, 0)) / spread):.3f} median over voxels "
              "(bar 0.8 to 1.2)", flush=True)  # fmt: skip


def bench_chi(head: Head, removals: list[str], methods: list[str]) -> None:
    """Go from noisy echoes to a map, and from the true local field."""
    te, grid = ECHOES["even"], geometry_from_affine(head.affine, head.mask.shape)
    total = total_field(noisy(head.signal(te), head.sigma, np.random.default_rng(0)), te, B0, head.mask, grid)
    for name in removals:
        local = BACKGROUNDS[name](total.field_map)
        noise = np.asarray(total.field_map.noise)
        draw = noise * np.random.default_rng(1).normal(size=noise.shape)
        true = field_map(
            head.local + draw, local.mask, grid, noise=noise, magnitude=total.field_map.magnitude,
            radians_per_ppm=total.field_map.radians_per_ppm,
        )  # fmt: skip
        kept = np.asarray(local.mask)
        field = float(nrmse(local.field, head.local, kept))
        print(f"{name}: local field {field:.1f} %, {100 * kept.sum() / head.mask.sum():.0f} % of the mask kept")
        truth = np.where(kept, head.chi - head.chi[kept].mean(), 0)
        for method in methods:
            found = []
            for given, invert in ((local, method), (true, "learned" if method == "learned_total" else method)):
                chi = np.asarray(local_field_to_chi(given, INVERSIONS[invert])[1].chi)
                found.append((float(xsim(chi, truth, kept)), float(nrmse(chi, truth, kept))))
            print(f"chi, {name}, {method}: xSIM {found[0][0]:.3f} from raw phase, {found[1][0]:.3f} from the true "
                  f"local field: {100 * found[0][0] / found[1][0]:.1f} % (bar 80); NRMSE {found[0][1]:.1f} and "
                  f"{found[1][1]:.1f} %", flush=True)  # fmt: skip


def main() -> None:
    """Print the figures of each head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="+", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=("field", "chi"), default=("field", "chi"))
    parser.add_argument("--voxel", type=float, nargs=3, default=(2.0, 2.0, 2.0), help="[mm]")
    parser.add_argument("--echoes", nargs="+", choices=list(ECHOES), default=list(ECHOES), help="sets of echo times")
    parser.add_argument("--noise", type=float, default=1.0, help="times the noise of that scan")
    parser.add_argument("--repeats", type=int, default=20, help="noise realisations of the field")
    parser.add_argument("--removals", nargs="+", choices=list(BACKGROUNDS), default=["tfi", "joint", "vsharp"])
    parser.add_argument("--methods", nargs="+", choices=list(INVERSIONS), default=["learned_total", "tv"])
    args = parser.parse_args()
    for path in args.labels:
        head = simulate(path, tuple(args.voxel), args.cache)
        head = dataclasses.replace(head, sigma=head.sigma * args.noise)
        print(f"{path.name}: {head.mask.shape}, {head.mask.sum()} voxels, signal-to-noise "
              f"{np.median(np.abs(head.echoes[0][head.mask])) / head.sigma:.0f} at {1000 * ALL[0]:.1f} ms")  # fmt: skip
        if "field" in args.only:
            bench_field(head, args.repeats, args.echoes)
        if "chi" in args.only:
            bench_chi(head, args.removals, args.methods)


if __name__ == "__main__":
    main()
