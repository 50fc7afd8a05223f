"""Compare methods over subjects and head orientations: the QSMnet paper's study, on simulated heads or on your own.

  qsmjax study OUT --subjects 6                                  drawn heads in five orientations, four methods
  qsmjax study OUT --labels LABELS --methods tkd,tv,medi         heads of real anatomy, out of label maps
  qsmjax study OUT --data DIR --methods tv,mine=W                your scans, and a network: its file or work folder
  qsmjax study OUT --labels LABELS --input phase                 from wrapped phase: unwrapping and background too

DIR holds a folder a subject, and in it a folder an orientation, as for `qsmjax cosmos`: localfield, totalfield or
phase, with mask, magnitude, noise, params.json, to_reference.mat where there are; truth.nii.gz [ppm] and
segmentation.nii.gz (FreeSurfer's numbers, or those of segmentation.json beside the orientations) where they are known.

Every scan and every map is a file in OUT: the same command goes on where it was broken off, and with more methods or
subjects it adds those alone; other scans in the place of those that were done are refused. Tables go to OUT/tables
(CSV, Markdown, LaTeX), figures to OUT/figures (PNG, PDF), and all of it to OUT/study.md.
"""

import argparse
import dataclasses
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qsmjax.cli.cosmos import DOUBTFUL
from qsmjax.cli.errors import UserError
from qsmjax.cli.infer import positive
from qsmjax.cli.study_jobs import SubjectJob, named_orientations, resolve_method, run_jobs
from qsmjax.io.lock import locked
from qsmjax.io.nifti import volume_files
from qsmjax.io.sidecar import load_json, save_json
from qsmjax.simulate.posture import ORIENTATIONS
from qsmjax.simulate.scan import FINE
from qsmjax.study.cohort import Cohort, subject_name
from qsmjax.study.subject import OWN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("out", metavar="OUT", help="folder of the study; taken up where it is there")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="DIR", help="your own scans: DIR/SUBJECT/ORIENTATION")
    source.add_argument("--labels", metavar="PATH", nargs="+", help="label maps, or a folder of them; default: drawn")
    add("--methods", default="tkd,tikhonov,tv,medi", help="NAME or LABEL=NAME or LABEL=PATH of a network, with commas")
    add("--set", action="append", default=[], metavar="LABEL.KEY=VALUE", help="an option of a method; repeatable")
    add(
        "--subjects",
        type=int,
        metavar="N",
        help="how many (label maps that come again are bent); default: one a label map, 6 drawn ones, all of DIR",
    )
    add("--orientations", type=int, default=5, metavar="N", help=f"of a simulated subject, 1 to {len(ORIENTATIONS)}")
    add("--tilt", type=float, default=30.0, help="largest turn of a simulated head [degrees]")
    add("--voxel-size", type=positive, nargs=3, default=(1.0, 1.0, 1.0), metavar=("X", "Y", "Z"), help="[mm]")
    add("--b0", type=positive, default=3.0, metavar="T", help="of simulated scans [tesla]")
    add("--snr", type=positive, default=90.0, help="of simulated white matter at the first echo")
    add(
        "--anisotropy",
        type=float,
        default=0.0,
        metavar="PPM",
        help="of simulated white matter: along less across",
    )
    add("--input", choices=("localfield", "phase"), default="localfield", help="what simulated scans hold")
    add("--fine", type=positive, default=FINE, metavar="MM", help="voxels that scans are simulated on; coarser: faster")
    add("--seed", type=int, default=0, help="of all that is random")
    add("--no-register", action="store_true", help="your orientations share one world already")
    add("--no-lesions", action="store_true", help="leave out the scans with lesions")
    add("--lambda-subjects", type=int, default=1, metavar="N", help="subjects for the curve over lambda; default 1")
    add("--jobs", type=int, default=1, metavar="N", help="subjects at a time, each in a process")
    add("--no-figures", action="store_true", help="tables only")
    add("--quiet", action="store_true", help="say nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Run the study.

    Returns:
      The exit status: 0, or 2 where some subject could not be done.
    """
    check(args)
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} must be a folder, got a file: choose another OUT")
    labels = [m.label for m in (resolve_method(spec, args.set) for spec in args.methods.split(","))]
    taken = [label for label in labels if labels.count(label) > 1 or label in OWN]
    if taken:
        raise UserError(
            f"--methods must have a label each, other than the study's own {', '.join(OWN)}, got {taken[0]!r}: say "
            "LABEL=NAME"
        )
    for pair in args.set:
        if pair.partition(".")[0] not in labels:
            raise UserError(f"--set must be LABEL.KEY=VALUE, LABEL one of {', '.join(labels)}, got {pair!r}")
    jobs = plan(args, out)
    started = time.perf_counter()
    with locked(out):
        keep_cohort(out, jobs[0].cohort)
        failed = run_jobs(jobs, workers=args.jobs, quiet=args.quiet)
        if len(failed) == len(jobs):
            raise UserError(next(iter(failed.values())))
        described = describe(args, time.perf_counter() - started, out)
        from qsmjax.study.results import write_results  # matplotlib is paid for only once there is something to draw

        done = [job.name for job in jobs if job.name not in failed]
        written = write_results(out, done, labels, described, figures=not args.no_figures)
    for line in doubts(out, done):
        print(f"warning: {line}", file=sys.stderr)
    for line in failed.values():
        print(f"error: {line}", file=sys.stderr)
    if not args.quiet:
        print(f"{written} ({time.perf_counter() - started:.0f} s)")
    return 2 if failed else 0


def check(args: argparse.Namespace) -> None:
    """Refuse numbers that cannot be, before anything is written.

    Raises:
      UserError: if one can't.
    """
    if not 1 <= args.orientations <= len(ORIENTATIONS):
        raise UserError(f"--orientations must be 1 to {len(ORIENTATIONS)}, got {args.orientations}")
    if not 0 < args.tilt <= 90:
        raise UserError(f"--tilt must be above 0 and at most 90 degrees, got {args.tilt:g}")
    for name in ("subjects", "jobs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}")
    if args.lambda_subjects < 0:
        raise UserError(f"--lambda-subjects must not be negative, got {args.lambda_subjects}")


def plan(args: argparse.Namespace, out: Path) -> list[SubjectJob]:
    """Make the list of subjects, with what is to be done of each.

    Raises:
      UserError: if there are none.
    """
    common: dict[str, Any] = {
        "out": str(out),
        "methods": tuple(args.methods.split(",")),
        "settings": tuple(args.set),
        "register": not args.no_register,
    }
    if args.data is not None:
        found = subjects_of(Path(args.data))[: args.subjects]
        return [
            SubjectJob(
                name=name,
                index=i,
                folder=str(folder),
                variation=i < args.lambda_subjects and len(named_orientations(folder)) > 1,
                **common,
            )
            for i, (name, folder) in enumerate(found)
        ]
    files = tuple(str(p) for path in args.labels or () for p in volume_files(path))
    cohort = Cohort(
        labels=files,
        orientations=args.orientations,
        tilt=args.tilt,
        voxel_size=tuple(args.voxel_size),
        b0=args.b0,
        snr=args.snr,
        anisotropy=args.anisotropy,
        phase=args.input == "phase",
        fine_voxel=args.fine,
        seed=args.seed,
    )
    return [
        SubjectJob(
            name=subject_name(i),
            index=i,
            folder=str(out / "scans" / subject_name(i)),
            cohort=cohort,
            lesions=not args.no_lesions,
            variation=i < args.lambda_subjects and args.orientations > 1,
            **common,
        )
        for i in range(args.subjects or len(files) or 6)
    ]


def subjects_of(folder: Path) -> list[tuple[str, Path]]:
    """Return name and folder of every subject: the folder itself where it holds orientations.

    Raises:
      UserError: if there are none.
    """
    if not folder.is_dir():
        raise UserError(f"--data must be a folder with one folder a subject, got none at {folder}")
    if named_orientations(folder):
        return [(folder.resolve().name, folder)]
    found = [(p.name, p) for p in sorted(folder.iterdir()) if p.is_dir() and named_orientations(p)]
    if not found:
        raise UserError(
            f"--data must hold SUBJECT/ORIENTATION folders with localfield, totalfield or phase files (.nii, .nii.gz), "
            f"got none in {folder}"
        )
    return found


def keep_cohort(out: Path, cohort: Cohort | None) -> None:
    """Write down how the subjects are simulated; a study that is there must have been simulated so too.

    Raises:
      UserError: if it was not.
    """
    # the label maps by name: the same files may lie elsewhere today
    told: dict[str, Any] = {"Data": "given"}
    if cohort is not None:
        told = dataclasses.asdict(cohort) | {"labels": [Path(path).name for path in cohort.labels]}
        told = {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}
    file = out / "cohort.json"
    if file.is_file():
        before = load_json(file)
        other = [key for key in told.keys() | before.keys() if told.get(key) != before.get(key)]
        if other:
            key = sorted(other)[0]
            raise UserError(
                f"{out} must go on with the cohort that it began with, got {key} {told.get(key)!r} where it has "
                f"{before.get(key)!r}: choose another OUT"
            )
    save_json(file, told)


def doubts(out: Path, subjects: Sequence[str]) -> list[str]:
    """Say which orientations may not lie on their reference."""
    found = []
    for subject in subjects:
        known = load_json(out / "maps" / subject / "subject.json")
        found += [
            f"subject {subject}, orientation {name} was registered with a correlation of {reached:.2f} (usual: above "
            f"{DOUBTFUL}): look whether the two lie on each other, and give its matrix if not"
            for name, reached in zip(known["Orientations"], known["Correlations"])
            if reached is not None and reached < DOUBTFUL
        ]
    return found


def describe(args: argparse.Namespace, seconds: float, out: Path) -> dict[str, str]:
    """Say how the study came about: the command, the machine, the time over all of its runs."""
    file = out / "study.json"
    before = load_json(file) if file.is_file() else {}
    total = float(before.get("Seconds", 0)) + seconds
    command = " ".join(["qsmjax study OUT", *map(shlex.quote, typed(args))])
    save_json(file, {"Seconds": total, "Command": command})
    return {
        "Command": f"`{command}`",
        "Machine": f"{platform.machine()}, {os.cpu_count()} cores, {args.jobs} process(es), Python "
        f"{platform.python_version()}",
        "Time": f"{total / 60:.1f} min in all runs, simulation included",
    }


def typed(args: argparse.Namespace) -> list[str]:
    """Return the words that ask for this study again, paths by their last name."""
    defaults = argparse.ArgumentParser()
    add_arguments(defaults)
    words: list[str] = []
    for name, value in vars(args).items():
        if name in ("out", "jobs", "quiet") or value == defaults.get_default(name):
            continue
        flag = f"--{name.replace('_', '-')}"
        if name == "set":
            words += [word for pair in value for word in (flag, pair)]
        elif value is True:
            words.append(flag)
        else:
            values = value if isinstance(value, list | tuple) else [value]
            short = name in ("data", "labels")
            words += [flag, *(Path(v).name if short else f"{v:g}" if isinstance(v, float) else str(v) for v in values)]
    return words
