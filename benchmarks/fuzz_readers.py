"""What the fuzzer feeds: one function for each reader of the library, (generator, folder) -> whatever was read."""

import argparse
import contextlib
import gzip
import io
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
from fuzz_mutations import WORDS, Rng, mutate, mutate_json

from qsmjax.cli import infer, study_jobs
from qsmjax.cli.orientations import orientation_folders
from qsmjax.cli.settings import options_of, parse_settings
from qsmjax.cli.stages import choose_stages
from qsmjax.inference.network import load_network
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.io.bids import check_label, find_runs, parse_name, sidecar_of
from qsmjax.io.kspace import load_calibration, load_coil_noise, load_kspace
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.io.sidecar import load_json, load_parameters
from qsmjax.io.weights import save_weights
from qsmjax.models.build import build
from qsmjax.registration.flirt import read_flirt
from qsmjax.training.checkpoint import Checkpoints
from qsmjax.training.config import TrainConfig, from_dict, with_settings
from qsmjax.training.presets import preset
from qsmjax.training.progress import STATE, Progress, restore, save, stored_run
from qsmjax.training.state import init_state

ALLOWED = (ValueError, OSError, MemoryError)
Reader = Callable[[Rng, Path], object]


def _volume(rng: Rng) -> bytes:
    shape = tuple(int(n) for n in rng.integers(1, 7, int(rng.integers(3, 6))))
    kind = rng.choice(["i2", "f4", "f8", "u1", "c8", "rgb", ">i2", "i8"])
    if kind == "rgb":
        data = np.zeros(shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    else:
        data = (100 * rng.normal(size=shape)).astype(kind)
    image = (nib.Nifti2Image if rng.uniform() < 0.3 else nib.Nifti1Image)(data, np.diag([1.0, 1.2, 2.0, 1.0]))
    if data.dtype.kind in "iu":
        image.header.set_slope_inter(0.01, 3)
    return image.to_bytes()


def nifti(rng: Rng, place: Path) -> object:
    """A NIfTI file whose header, or any byte, was changed; plain and gzipped, before and after compression."""
    data = mutate(rng, _volume(rng), 352)
    kind = rng.integers(4)
    name = "v.nii.gz" if kind else "v.nii"
    if kind == 3:
        data = mutate(rng, gzip.compress(data, 1))
    elif kind:
        data = gzip.compress(data, 1)
    (place / name).write_bytes(data)
    volume = load_volume(place / name)
    if not np.isfinite(volume.affine).all() or volume.data.ndim < 3:
        raise AssertionError(f"a volume of {volume.data.shape} with affine {volume.affine.tolist()} was let in")
    save_volume(place / "w.nii.gz", np.zeros(volume.data.shape, np.float32), volume)
    return load_volume(place / "w.nii.gz")


FIELD = np.where(np.ones((6, 5, 4)), 0.01, 0) * np.arange(4)


def whole_infer(rng: Rng, place: Path) -> object:
    """`infer` from broken files and flags to a map of TKD: whatever comes out is finite."""
    for name in ("field", "mask", "noise", "mag"):
        volume = {"field": FIELD, "mask": FIELD != 0, "noise": FIELD * 0 + 1e-3, "mag": FIELD * 0 + 5}[name]
        save_volume(place / f"{name}.nii", volume, new_volume(volume, np.eye(4)))
        if rng.uniform() < 0.4:
            (place / f"{name}.nii").write_bytes(mutate(rng, (place / f"{name}.nii").read_bytes(), 352))
    params = {"TE": [0.02], "B0": 3, "B0_dir": [0, 0, 1], "voxel_size": [1, 1, 1]}
    (place / "params.json").write_text(json.dumps(mutate_json(rng, params) if rng.uniform() < 0.5 else params))
    flags = {"--mask": "mask.nii", "--noise": "noise.nii", "--magnitude": "mag.nii", "--params": "params.json"}
    words = [str(place / "field.nii"), "--method", "tkd", "--quiet", "--no-figure"]
    for flag, name in flags.items():
        if rng.uniform() < 0.6:
            words += [flag, str(place / name)]
    parser = argparse.ArgumentParser()
    infer.add_arguments(parser)
    args = parser.parse_args(words)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        infer.run(args)
    chi = load_volume(place / "field_Chimap.nii.gz").data
    if not np.isfinite(chi).all():
        raise AssertionError("a map that is not finite was written")
    return chi


PARAMS = {"TE": [0.006, 0.012], "B0": 3.0, "B0_dir": [0.0, 0.0, 1.0], "voxel_size": [1.0, 1.0, 2.0]}


def params(rng: Rng, place: Path) -> object:
    """params.json and sidecars: other values, broken text, deep nesting, no text at all."""
    text = json.dumps(mutate_json(rng, PARAMS))
    kind = rng.integers(12)
    if kind == 0:
        text = "[" * int(rng.integers(1, 200_000))
    data = mutate(rng, text.encode()) if kind < 5 else text.encode()
    (place / "params.json").write_bytes(data)
    load_json(place / "params.json")
    return load_parameters(place / "params.json")


def settings(rng: Rng, place: Path) -> object:
    """`--set` of every inversion, and `--methods` of a study."""
    name = str(rng.choice(list(INVERSIONS)))
    options = options_of(INVERSIONS[name])
    keys = [*options, "x", "inversion.weight", "background.method", ""]
    pairs = [
        f"{rng.choice(keys)}{rng.choice(['=', '=', '=', ''])}{rng.choice(WORDS)}" for _ in range(rng.integers(1, 3))
    ]
    if rng.uniform() < 0.3:
        return study_jobs.resolve_method(f"{rng.choice([*WORDS, name])}={rng.choice([*WORDS, name])}", pairs)
    if rng.uniform() < 0.4:
        parser = argparse.ArgumentParser()
        infer.add_arguments(parser)
        args = parser.parse_args([str(place / "f.nii"), "--method", name, *(w for p in pairs for w in ("--set=" + p,))])
        return choose_stages(args)
    return parse_settings(pairs, options, name)


def config(rng: Rng, place: Path) -> object:
    """The config of a training run, from `--set` and from a checkpoint's JSON."""
    kinds = list(TrainConfig.__dataclass_fields__)
    if rng.uniform() < 0.5:
        return with_settings(preset("tiny"), [f"{rng.choice([*kinds, 'x'])}={rng.choice(WORDS)}"])
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(preset("tiny")).items()}
    changed = mutate_json(rng, values)
    return from_dict(json.loads(json.dumps(changed)) if isinstance(changed, dict) else {"preset": changed})


CARD = {
    "name": "tiny",
    "network": {"name": "qsmnet", "width": 1, "depth": 1, "kernel": 3},
    "scaling": {"field_mean": 0.0, "field_std": 1.0, "chi_mean": 0.0, "chi_std": 1.0},
    "voxel_size": [1.0, 1.0, 1.0],
    "b0_dir": [0.0, 0.0, 1.0],
}


def weights(rng: Rng, place: Path) -> object:
    """Weights: bytes changed, cut, another card, a pickle under their name; loaded as a network, not run."""
    file = place / "w.safetensors"
    card = mutate_json(rng, CARD) if rng.uniform() < 0.6 else CARD
    with contextlib.suppress(*ALLOWED, TypeError):
        save_weights(file, {"params": {"a": {"kernel": jnp.ones((2, 3))}}}, card)  # type: ignore[arg-type]
    if not file.exists():
        file.write_bytes(b"")
    if rng.uniform() < 0.1:
        file.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    elif rng.uniform() < 0.6:
        file.write_bytes(mutate(rng, file.read_bytes(), 200))
    return load_network(file)


def matrix(rng: Rng, place: Path) -> object:
    """FLIRT's matrices."""
    (place / "m.mat").write_bytes(mutate(rng, b"1 0 0 2\n0 1 0 3\n0 0 1 4\n0 0 0 1\n"))
    return read_flirt(place / "m.mat")


ODD = (
    "sub-01",
    "sub-",
    "sub-..",
    "sub-0 1",
    "ses-a",
    "anat",
    "sub-01_MEGRE.nii.gz",
    "sub-01_echo-1_part-phase_MEGRE.nii",
    "sub-01_echo-x_MEGRE.nii.gz",
    "sub-é_GRE.nii",
    "sub-01_MEGRE.json",
    "sub-01_echo-1_echo-2_MEGRE.nii.gz",
    ".hidden",
    "sub-01_part-mag_T2starw.nii.gz",
    "-",
    "sub-01_part-real_MEGRE.nii.gz",
    "a" * 200,
)


def bids(rng: Rng, place: Path) -> object:
    """BIDS trees with odd names, folders for files, loops of links, labels that lead out."""
    here = [place]
    for _ in range(int(rng.integers(2, 12))):
        parent, name = here[rng.integers(len(here))], str(rng.choice(ODD))
        target = parent / name
        if target.exists() or target.is_symlink() or len(str(target)) > 3000:
            continue
        kind = rng.integers(6)
        if kind < 3:
            target.mkdir()
            here.append(target)
        elif kind == 3:
            target.symlink_to(str(rng.choice(["..", ".", "/etc", name, "/"])))
        else:
            target.write_bytes(mutate(rng, b'{"EchoTime": 0.004}'))
    label = str(rng.choice([*WORDS, "01", "../../etc", "sub-01"]))
    parse_name(label)
    with contextlib.suppress(ValueError):
        check_label("--participant-label", label, "sub")
    runs = find_runs(place, [label] if rng.uniform() < 0.3 else [])
    for run in runs:
        if ".." in run.stem or run.anat.is_absolute():
            raise AssertionError(f"a run that leads out of the folder: {run}")
        for file in run.files:
            sidecar_of(place, file)
    return runs


def orientations(rng: Rng, place: Path) -> object:
    """Folders of `cosmos` and `study`: files missing, broken, on other grids."""
    for name in ("a", "b"):
        (place / name).mkdir()
        for what in ("localfield", "mask", "truth", "segmentation", "magnitude"):
            if rng.uniform() < 0.75:
                shape = (6, 5, 4) if rng.uniform() < 0.9 else (5, 5, 5)
                volume = rng.integers(0, 3, shape) * (0.01 if what == "localfield" else 1.0)
                save_volume(place / name / f"{what}.nii", volume, new_volume(volume, np.eye(4)))
                if rng.uniform() < 0.25:
                    (place / name / f"{what}.nii").write_bytes(
                        mutate(rng, (place / name / f"{what}.nii").read_bytes(), 352)
                    )
        (place / name / "to_reference.mat").write_bytes(mutate(rng, b"1 0 0 2\n0 1 0 3\n0 0 1 4\n0 0 0 1\n"))
    if rng.uniform() < 0.5:
        (place / "segmentation.json").write_text(json.dumps(mutate_json(rng, {"caudate": [1], "white": [2]})))
    orientation_folders(place)
    return study_jobs.read_subject(place)


def kspace(rng: Rng, place: Path) -> object:
    """k-space of `recon`: a lying header, a cut, an archive, objects."""
    shape = tuple(int(n) for n in rng.integers(1, 5, int(rng.integers(2, 7))))
    data = rng.normal(size=shape).astype(rng.choice(["c8", "c16", "f4", "O"]))
    file = io.BytesIO()
    if rng.uniform() < 0.1:
        np.savez(file, data)
    else:
        np.save(file, data)
    (place / "k.npy").write_bytes(mutate(rng, file.getvalue(), 128))
    load = (load_kspace, load_calibration, load_coil_noise)[int(rng.integers(3))]
    return load(place / "k.npy")


OLD = Path(__file__).parents[1] / "tests" / "reliability" / "workdir_0.1.0"


def checkpoint(rng: Rng, place: Path) -> object:
    """Work folders that training goes on from: files changed, cut, gone, other JSON; nothing is trained."""
    workdir = Path(shutil.copytree(OLD, place / "W"))
    files = sorted(path for path in (workdir / "checkpoints").rglob("*") if path.is_file())
    for _ in range(int(rng.integers(1, 3))):
        file = files[rng.integers(len(files))]
        if rng.uniform() < 0.15:
            file.unlink(missing_ok=True)
        elif file.exists():
            file.write_bytes(mutate(rng, file.read_bytes()))
    with closing(Checkpoints(workdir)) as checkpoints:
        if checkpoints.latest() is None:
            return None
        found = checkpoints.config()
        checkpoints.next_batch()
        like = jax.eval_shape(lambda: init_state(found, build(found.model())))
        return checkpoints.restore(like)


def progress(rng: Rng, place: Path) -> object:
    """The state of the learned inversion's training: its file changed, its config another."""
    folder = place / "stage_0"
    folder.mkdir()
    told = preset("learned").to_dict()
    kept = Progress(np.ones((), np.int32), {"a": np.ones((2, 3))}, {"a": np.ones((2, 3))}, {"m": np.zeros(3)})
    save(folder, from_dict(told), kept)
    file = folder / STATE
    if rng.uniform() < 0.4:
        leaves = {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(kept))}
        card = mutate_json(rng, {"name": "state", "config": told})
        with contextlib.suppress(*ALLOWED, TypeError):
            save_weights(file, leaves, card)  # type: ignore[arg-type]
    else:
        file.write_bytes(mutate(rng, file.read_bytes(), 400))
    stored_run(place)
    return restore(folder, kept)


READERS: dict[str, tuple[Reader, float]] = {
    "nifti": (nifti, 0.36),
    "params": (params, 0.16),
    "settings": (settings, 0.16),
    "config": (config, 0.1),
    "weights": (weights, 0.1),
    "bids": (bids, 0.05),
    "matrix": (matrix, 0.04),
    "whole_infer": (whole_infer, 0.02),
    "orientations": (orientations, 0.01),
    "kspace": (kspace, 0.04),
    "progress": (progress, 0.01),
    "checkpoint": (checkpoint, 0.008),
}
"""Each reader and its part of the cases."""
