"""Print how well the scanner side does: phase to field, its noise, coils, undersampling, head orientations.

    python benchmarks/scanner.py [--labels LABELS.nii.gz] [--only field coils grappa espirit orientations]

Without a label map an analytic head is simulated: brain, skull, an air-filled sinus, air around. With one (FreeSurfer
and SynthSeg numbers, 1 mm) real anatomy is, at 2 mm. Field: 3 T, complex noise, a coil-like initial phase, R2* decay, a
shim of second order. Each bar stands beside its figure.
"""

import argparse
import time

import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from qsmjax.io.nifti import load_volume
from qsmjax.numerics.resample import band_limit
from qsmjax.phase.echoes import fit_echoes
from qsmjax.phase.mask import erode_mask
from qsmjax.phase.offsets import coil_offsets, combine_coils
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.physics.units import radians_per_ppm
from qsmjax.recon.combine import image_to_kspace, kspace_to_image
from qsmjax.recon.espirit import espirit
from qsmjax.recon.grappa import grappa
from qsmjax.registration.resample import resample
from qsmjax.registration.rigid import even_out, register_rigid, rotation_matrix
from qsmjax.simulate.tissue import OUTSIDE, TISSUES

B0 = 3.0
VOXEL = 2.0
LABELS = {
    "white": (2, 41, 136, 137, 163, 164), "cortex": (3, 42), "cerebellar_white": (7, 46), "cerebellar_cortex": (8, 47),
    "thalamus": (10, 49), "caudate": (11, 50), "putamen": (12, 51), "pallidum": (13, 52), "brainstem": (16,),
    "hippocampus": (17, 53), "amygdala": (18, 54), "accumbens": (26, 58), "diencephalon": (28, 60),
    "white_lesion": (25, 57), "vein": (30, 62, 514), "artery": (502,), "optic": (85, 530), "air": (0,), "eye": (506,),
    "muscle": (507, 508), "mucosa": (509,), "skin": (511,), "cord": (512,), "bone": (515,), "marrow": (516,),
}  # fmt: skip
NAMES = {label: name for name, labels in LABELS.items() for label in labels}
BRAIN_LABELS = [label for label in NAMES if label < 100 and label > 0] + [
    136,
    137,
    163,
    164,
    4,
    5,
    14,
    15,
    24,
    43,
    44,
    72,
]


class Head:
    """chi [ppm], signal at TE = 0, R2* [1/s], the brain's mask, and air inside the head."""

    def __init__(self, labels: str | None):
        if labels is None:
            self.chi, self.m0, self.r2star, self.mask, self.air = analytic_head()
        else:
            self.chi, self.m0, self.r2star, self.mask, self.air = labelled_head(labels)
        self.grid = geometry(self.mask.shape, (VOXEL,) * 3, (0.0, 0.1, 1.0))
        field = np.asarray(forward_field(jnp.asarray(self.chi), self.grid))
        self.field = field - shim(field, self.mask)
        self.far = scipy.ndimage.distance_transform_edt(~self.air) * VOXEL > 15

    def signal(self, te) -> np.ndarray:
        x, y, z = axes(self.mask.shape)
        c = np.asarray(radians_per_ppm(B0, np.asarray(te, np.float32)))[:, None, None, None]
        decay = np.exp(-self.r2star * np.asarray(te)[:, None, None, None])
        return self.m0 * decay * np.exp(1j * (0.5 + x - 0.8 * y * z + c * self.field))


def axes(shape):
    return np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")


def analytic_head():
    shape = (84, 104, 84)
    x, y, z = (a * n * VOXEL / 2 for a, n in zip(axes(shape), shape))
    brain = (x / 64) ** 2 + (y / 80) ** 2 + (z / 62) ** 2 < 1
    head = (x / 74) ** 2 + (y / 92) ** 2 + ((z + 4) / 74) ** 2 < 1
    sinus = (x / 18) ** 2 + ((y - 62) / 12) ** 2 + ((z + 44) / 12) ** 2 < 1
    brain = brain & ~scipy.ndimage.binary_dilation(sinus, iterations=2)
    chi = np.where(head & ~sinus, 0.0, OUTSIDE["air"].chi)
    chi = np.where(
        head & ~brain & ~sinus & ((x / 70) ** 2 + (y / 87) ** 2 + (z / 69) ** 2 < 1), OUTSIDE["bone"].chi, chi
    )
    r2star, m0 = np.full(shape, 19.0), np.where(head, 0.7, 0)
    for name, centre in (("pallidum", (18, 0, 0)), ("putamen", (26, 6, 2)), ("caudate", (12, 18, 8))):
        for side in (-1, 1):
            near = sum((a - b * s) ** 2 for a, b, s in zip((x, y, z), centre, (side, 1, 1))) < 49
            chi, r2star = np.where(near, TISSUES[name].chi, chi), np.where(near, TISSUES[name].r2s, r2star)
    air = sinus & head
    return band_limited(chi), m0 * ~sinus, r2star, brain, air


def labelled_head(path: str):
    labels = load_volume(path).data.astype(int)[::2, ::2, ::2]
    tissues = TISSUES | OUTSIDE
    maps = [np.zeros(labels.shape) for _ in range(3)]
    for label in np.unique(labels):
        tissue = tissues[NAMES.get(int(label), "csf")]
        for volume, value in zip(maps, (tissue.chi, tissue.m0, tissue.r2s)):
            volume[labels == label] = value
    brain = scipy.ndimage.binary_opening(np.isin(labels, BRAIN_LABELS))
    head = scipy.ndimage.binary_fill_holes(scipy.ndimage.binary_closing(labels > 0, iterations=4))
    return band_limited(maps[0]), maps[1], maps[2], brain, head & (labels == 0)


def band_limited(chi):
    return np.asarray(band_limit(jnp.asarray(chi, jnp.float32)))


def shim(field, mask):
    """Fit the field's second order over the brain, as a scanner's shims take it away."""
    x, y, z = axes(field.shape)
    terms = np.stack([np.ones_like(x), x, y, z, x * y, y * z, z * x, x**2 - y**2, 2 * z**2 - x**2 - y**2])
    weights = np.linalg.lstsq(terms[:, mask].T, field[mask], rcond=None)[0]
    return np.tensordot(weights, terms, 1)


def noisy(signal, sigma, rng):
    return (signal + sigma * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))).astype(np.complex64)


def bound(signal, te, sigma):
    """The Cramér-Rao bound of the field where the initial phase is free [ppm]."""
    c, power = np.asarray(radians_per_ppm(B0, np.asarray(te, np.float32)))[:, None, None, None], np.abs(signal) ** 2
    middle = np.sum(power * c, axis=0) / np.maximum(np.sum(power, axis=0), 1e-12)
    return sigma / np.sqrt(np.maximum(np.sum(power * (c - middle) ** 2, axis=0), 1e-12))


def bench_field(head: Head, repeats: int) -> None:
    for te in ((0.004, 0.012, 0.020, 0.028), (0.0037, 0.0111, 0.0137, 0.0243, 0.0311), (0.006, 0.018)):
        clean, rng, sigma = head.signal(te), np.random.default_rng(0), 0.7 / 40
        start, fields, noises = time.perf_counter(), [], []
        for _ in range(repeats):
            fit = fit_echoes(noisy(clean, sigma, rng), te, B0, head.mask)
            fields.append(np.asarray(fit.field)[head.mask])
            noises.append(np.asarray(fit.noise)[head.mask])
        taken = (time.perf_counter() - start) / repeats
        fields, told = np.stack(fields), np.stack(noises)
        error = fields - head.field[head.mask]
        error = error - np.mean(error, axis=1, keepdims=True)
        ratio = np.sqrt(np.mean(error**2, axis=0)) / bound(clean, te, sigma)[head.mask]
        turn = 1 / (np.diff(te).min() * radians_per_ppm(B0, 1.0) / (2 * np.pi))
        off = np.abs(error) > 0.5 * float(turn)
        spread = np.std(fields, axis=0, ddof=1)
        print(f"field, {len(te)} echoes {'/'.join(f'{1000 * t:.1f}' for t in te)} ms, {head.mask.sum()} voxels, "
              f"{taken:.1f} s a fit")  # fmt: skip
        inside = 100 * np.mean(ratio < 1.5)
        print(f"  within 1.5 Cramer-Rao bounds: {inside:.1f} % (bar 95), median {np.median(ratio):.3f}")
        print(f"  off by a turn: {off.any(0).sum()} voxels, of these away from sinuses "
              f"{(off.any(0) & head.far[head.mask]).sum()} (bar 0)")  # fmt: skip
        per_voxel = np.sqrt(np.mean(told**2, 0)) / spread
        print(f"  noise told / seen: {np.sqrt(np.mean(told**2) / np.mean(spread**2)):.3f} over all, "
              f"{np.median(per_voxel):.3f} median (bar 0.8 to 1.2)")  # fmt: skip


def bench_coils(head: Head) -> None:
    """Uncombined coils, each with its own phase: combined by their offsets, then fitted."""
    te, rng, sigma = (0.004, 0.012, 0.020, 0.028), np.random.default_rng(0), 0.7 / 40
    x, y, z = axes(head.mask.shape)
    angles = 2 * np.pi * np.arange(8) / 8
    maps = np.stack([np.exp(-((x - np.cos(a)) ** 2) - (y - np.sin(a)) ** 2 + 1j * (2 * a + x * y + z)) for a in angles])
    maps = maps / np.linalg.norm(maps, axis=0)
    clean = head.signal(te)
    coils = noisy(clean[:, None] * maps, sigma, rng)
    combined = combine_coils(coils, coil_offsets(coils, te, head.mask, voxel_size=(VOXEL,) * 3))
    for name, known in (("initial phase fitted", None), ("initial phase removed", 0.0)):
        fit = fit_echoes(combined, te, B0, head.mask, initial_phase=known)
        error = (np.asarray(fit.field) - head.field)[head.mask]
        error = error - error.mean()
        best = np.sqrt(np.mean(bound(clean, te, sigma)[head.mask] ** 2))
        middle = 1.4826 * np.median(np.abs(error - np.median(error)))
        print(f"coils, {name}: RMSE {1000 * np.std(error):.2f} ppb, robust {1000 * middle:.2f}, "
              f"one ideal coil's bound {1000 * best:.2f}")  # fmt: skip


SLAB = 12
"""Samples along the readout of what pygrappa fills too."""


def bench_grappa(head: Head) -> None:
    maps, image = coil_maps(head), head.signal((0.012,))[0]
    kspace = noisy(np.asarray(image_to_kspace(maps * image)), 0.7 / 40, np.random.default_rng(0))
    shape = image.shape
    sampled = np.zeros(shape[1:], bool)
    sampled[::2, 1::2] = True
    sampled[shape[1] // 2 - 12 : shape[1] // 2 + 12, shape[2] // 2 - 12 : shape[2] // 2 + 12] = True
    error = lambda k: np.linalg.norm(np.asarray(kspace_to_image(k)) - maps * image) / np.linalg.norm(maps * image)
    start = time.perf_counter()
    filled = np.asarray(grappa(kspace * sampled))
    taken = time.perf_counter() - start
    print(f"grappa 2x2, 8 coils {shape}: NRMSE {100 * error(filled):.2f} %, full {100 * error(kspace):.2f}, "
          f"zero-filled {100 * error(kspace * sampled):.2f}; {taken:.1f} s")  # fmt: skip
    try:
        import pygrappa
    except ImportError:
        return
    plane = kspace_to_x(kspace * sampled)[:, shape[0] // 2]
    truth = (maps * image)[:, shape[0] // 2]
    ours = np.asarray(grappa(plane[:, None]))[:, 0]
    theirs = np.moveaxis(pygrappa.mdgrappa(np.moveaxis(plane, 0, -1).copy(), kernel_size=(5, 5)), -1, 0)
    worth = lambda k: np.linalg.norm(np.asarray(kspace_to_image(k[:, None]))[:, 0] - truth) / np.linalg.norm(truth)
    print(
        f"  one plane: NRMSE {100 * worth(ours):.2f} %, pygrappa {100 * worth(theirs):.2f} (bar: no worse)", flush=True
    )
    # a slab of few samples along the readout, as pygrappa takes minutes for a volume
    slab = (maps * image)[:, shape[0] // 2 - SLAB // 2 :][:, :SLAB]
    thin = noisy(np.asarray(image_to_kspace(slab)), 0.7 / 40, np.random.default_rng(1)) * sampled
    worth = lambda k: np.linalg.norm(np.asarray(kspace_to_image(k)) - slab) / np.linalg.norm(slab)
    took = []
    for run in (
        grappa,
        lambda k: np.moveaxis(pygrappa.mdgrappa(np.moveaxis(k, 0, -1).copy(), kernel_size=(5, 5, 5)), -1, 0),
    ):
        start = time.perf_counter()
        took.append((100 * worth(run(thin)), time.perf_counter() - start))
    print(f"  a slab of {SLAB} samples along the readout: NRMSE {took[0][0]:.2f} % in {took[0][1]:.0f} s, pygrappa "
          f"{took[1][0]:.2f} in {took[1][1]:.0f}")  # fmt: skip


def kspace_to_x(kspace):
    centred = np.fft.ifftshift(kspace, axes=1)
    return np.fft.fftshift(np.fft.ifft(centred, axis=1, norm="ortho"), axes=1).astype(np.complex64)


def bench_espirit(head: Head) -> None:
    maps, image = coil_maps(head), head.signal((0.012,))[0]
    middle = image.shape[0] // 2
    flat = (maps * image)[:, middle][..., None]
    kspace = noisy(np.asarray(image_to_kspace(flat)), 0.7 / 400, np.random.default_rng(0))
    centre = [slice(n // 2 - 12, n // 2 + 12) for n in kspace.shape[1:3]]
    start = time.perf_counter()
    found = np.asarray(espirit(kspace[:, centre[0], centre[1]], kspace.shape[1:]).maps)[..., 0]
    taken = time.perf_counter() - start
    where = head.mask[middle]
    line = f"espirit, 8 coils {flat.shape[1:3]}: to the truth {distance(found, maps[:, middle], where):.4f}"
    try:
        from sigpy.mri.app import EspiritCalib
    except ImportError:
        print(f"{line}; {taken:.1f} s")
        return
    theirs = EspiritCalib(kspace[..., 0], calib_width=24, crop=0, show_pbar=False).run()
    print(f"{line}, to sigpy's {distance(found, theirs, where):.4f} (bar 0.01), "
          f"sigpy to the truth {distance(theirs, maps[:, middle], where):.4f}; {taken:.1f} s")  # fmt: skip


def distance(a, b, where):
    """Root mean square distance of unit vectors over coils, up to one phase a voxel."""
    turned = a * np.exp(1j * np.angle(np.sum(np.conj(a) * b, axis=0)))
    return np.sqrt(np.mean(np.sum(np.abs(turned - b) ** 2, axis=0)[where]))


def coil_maps(head: Head):
    x, y, z = axes(head.mask.shape)
    angles = 2 * np.pi * np.arange(8) / 8
    raw = [
        np.exp(-0.6 * ((y - 1.2 * np.cos(a)) ** 2 + (z - 1.2 * np.sin(a)) ** 2 + (x - 0.4 * (-1) ** i) ** 2))
        * np.exp(1j * (a + y * np.cos(2 * a) + 0.5 * x))
        for i, a in enumerate(angles)
    ]
    return np.stack(raw) / np.linalg.norm(raw, axis=0)


TURNS = (
    (10, (0, 0, 1), 1), (20, (1, 0, 0), 1), (25, (0, 1, 0.3), 1), (35, (1, 0.4, -0.3), 1), (25, (1, 0, 0), 0.7)
)  # fmt: skip
"""Degrees, axis, and the part of the head that is scanned."""


def bench_orientations(head: Head) -> None:
    """Magnitudes turned up to 35 degrees, scaled, noisy, one with a slab's field of view; shaded ones, evened or not.

    The shading is a coil's above the head, and stays in the scanner.
    """
    magnitude = np.abs(head.signal((0.012,))[0]).astype(np.float32)
    shape, rng = magnitude.shape, np.random.default_rng(0)
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = -(np.asarray(shape) - 1) / 2 * VOXEL
    mask = erode_mask(head.mask, 1)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    shading = np.exp(-((x - 0.5) ** 2 + (y - 1) ** 2 + (z - 0.8) ** 2) / 2)
    cases = [(degrees, axis, slab, None) for degrees, axis, slab in TURNS]
    cases += [(degrees, axis, 1, evened) for degrees, axis, slab in TURNS if slab == 1 for evened in (False, True)]
    for degrees, axis, slab, evened in cases:
        truth = np.eye(4)
        turn = np.radians(degrees) * np.asarray(axis) / np.linalg.norm(axis)
        truth[:3, :3], truth[:3, 3] = np.asarray(rotation_matrix(turn), np.float64), (6, -8, 5)
        own = affine.copy()
        cut = (shape[0], shape[1], int(shape[2] * slab))
        own[2, 3] += (shape[2] - cut[2]) / 2 * VOXEL
        # the moving head is the fixed one at T⁻¹ of each place
        turned = np.asarray(resample(magnitude, affine, own, cut, np.linalg.inv(truth)))
        shade = 1 if evened is None else shading
        measured = [np.abs(noisy(s * v * shade, s * 0.02, rng)) for s, v in ((400.0, turned), (1.0, magnitude))]
        if evened:
            measured = [np.asarray(even_out(m, (VOXEL, VOXEL, VOXEL))) for m in measured]
        start = time.perf_counter()
        found = register_rigid(measured[0], measured[1], own, affine, fixed_mask=mask)
        taken = time.perf_counter() - start
        between = found.transform[:3, :3] @ truth[:3, :3].T
        angle = np.degrees(np.arcsin(np.linalg.norm(between - between.T) / np.sqrt(8)))
        inside = np.stack(np.nonzero(mask))
        world = affine[:3, :3] @ inside + affine[:3, 3:]
        moved = [t[:3, :3] @ world + t[:3, 3:] for t in (found.transform, truth)]
        off = np.linalg.norm(np.mean(moved[0] - moved[1], axis=1))
        shaded = {None: "", False: ", shaded", True: ", shaded and evened out"}[evened]
        name = f"{degrees} degrees{'' if slab == 1 else ', slab'}{shaded}"
        print(f"orientation, {name}: off by {angle:.3f} degrees (bar 0.2) and {off:.3f} mm (bar 0.3), correlation "
              f"{found.correlation:.4f}; {taken:.1f} s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", help="label map of a whole head, 1 mm; without it an analytic head")
    parser.add_argument("--repeats", type=int, default=20, help="noise realisations of the field (default 20)")
    choices = ["field", "coils", "grappa", "espirit", "orientations"]
    parser.add_argument("--only", nargs="+", choices=choices, default=choices, help="parts to run")
    args = parser.parse_args()
    head = Head(args.labels)
    for part in args.only:
        bench = {
            "coils": bench_coils,
            "grappa": bench_grappa,
            "espirit": bench_espirit,
            "orientations": bench_orientations,
        }
        if part == "field":
            bench_field(head, args.repeats)
        else:
            bench[part](head)


if __name__ == "__main__":
    main()
