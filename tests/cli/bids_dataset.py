"""A simulated BIDS dataset of six subjects, each stored in another way; one file is cut short."""

import json

import numpy as np

from qsmjax.io.nifti import new_volume, save_volume

SHAPE = (26, 26, 26)
TE = (0.004, 0.010, 0.018)
B0 = 2.8936
"""What a scanner sold as 3 T runs at: 123.2 MHz."""


def head(tilt=0.0, te=TE, seed=0):
    """Balls in a ball, a strong source outside, on a grid turned about x: affine, chi, mask, complex echoes."""
    points = np.array(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    ball = lambda centre, radius: (
        1 / (1 + np.exp((np.linalg.norm(points - np.reshape(centre, (3, 1, 1, 1)), axis=0) - radius) / 0.5))
    )
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    affine = np.eye(4)
    affine[1:3, 1:3] = [[c, -s], [s, c]]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    mask = ball((0, 0, 0), 10.5) > 0.5
    chi = (0.12 * ball((2, 1, 0), 2.5) - 0.08 * ball((-4, 3, 2), 2.0)) * mask
    field = field_of(chi + 2.0 * ball((0, 0, -14), 2), affine[2, :3])
    phase = np.stack([2 * np.pi * 42.577478518 * B0 * t * field + 0.3 * (len(te) > 1) for t in te])
    rng = np.random.default_rng(seed)
    noise = 0.004 * (rng.normal(size=phase.shape) + 1j * rng.normal(size=phase.shape))
    decay = np.exp(-25 * np.array(te))[:, None, None, None]
    return affine, chi, mask, mask * decay * np.exp(1j * phase) + noise


def field_of(chi, b0_dir):
    """The dipole field [ppm], independent of what is tested."""
    k = np.meshgrid(*[np.fft.fftfreq(n) for n in chi.shape], indexing="ij")
    along = sum(b * component for b, component in zip(b0_dir, k))
    power = sum(component**2 for component in k)
    dipole = np.where(power > 0, 1 / 3 - along**2 / np.where(power > 0, power, 1), 0)
    return np.fft.ifftn(dipole * np.fft.fftn(chi)).real


def write(path, data, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_volume(path, data, new_volume(data, affine))


def tell(path, **values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def make_dataset(root):
    """Write the dataset, two of its scans without a number far outside; return each one's (chi, mask), by its stem."""
    tell(root / "dataset_description.json", Name="Six heads", BIDSVersion="1.10.0", License="CC0", Authors=["A", "B"])
    for suffix in ("MEGRE", "T2starw"):
        tell(root / f"{suffix}.json", MagneticFieldStrength=3, ImagingFrequency=123.2, Manufacturer="Siemens")
    truth = {}
    for number, tilt in (("01", 0), ("02", 25), ("04", 0), ("05", 0)):
        affine, chi, mask, signal = head(tilt, seed=int(number))
        truth[f"sub-{number}"] = chi, mask
        signal[:, 0, 0, 0] = np.nan if number == "04" else signal[:, 0, 0, 0]
        parts = {"real": signal.real, "imag": signal.imag} if number == "04" else {}
        for part, data in (parts or {"mag": np.abs(signal), "phase": np.angle(signal)}).items():
            for i, (te, echo) in enumerate(zip(TE, data), 1):
                stem = root / f"sub-{number}" / "anat" / f"sub-{number}_echo-{i}_part-{part}_MEGRE"
                write(stem.with_name(stem.name + ".nii.gz"), echo, affine)
                tell(stem.with_name(stem.name + ".json"), EchoTime=te, Units="rad" if part == "phase" else "arbitrary")
    cut = root / "sub-05" / "anat" / "sub-05_echo-2_part-phase_MEGRE.nii.gz"
    cut.write_bytes(cut.read_bytes()[:9000])
    affine, chi, mask, signal = head(te=TE[1:2], seed=3)
    truth["sub-03"] = chi, mask
    stem = root / "sub-03" / "anat" / "sub-03_part-phase_T2starw"
    write(stem.with_name(stem.name + ".nii.gz"), np.angle(signal[0]), affine)
    write(stem.with_name("sub-03_part-mag_T2starw.nii.gz"), np.abs(signal[0]), affine)
    tell(stem.with_name("sub-03_T2starw.json"), EchoTime=TE[1])
    tell(stem.with_name(stem.name + ".json"), Units="rad")
    affine, chi, mask, signal = head(seed=6)
    signal[1, 0, 0, 0] = np.nan
    truth["sub-06_ses-a_run-1"] = chi, mask
    anat = root / "sub-06" / "ses-a" / "anat"
    for part, data in (("phase", np.angle(signal)), ("mag", np.abs(signal))):
        write(anat / f"sub-06_ses-a_run-1_part-{part}_T2starw.nii", np.moveaxis(data, 0, -1), affine)
        tell(anat / f"sub-06_ses-a_run-1_part-{part}_T2starw.json", EchoTime=list(TE), Units="rad")
    return truth
