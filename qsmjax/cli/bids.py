"""Make the susceptibility maps of a BIDS dataset: a BIDS App.

  qsmjax bids BIDS_DIR OUT_DIR participant                         every scan with phase, or real and imaginary parts
  qsmjax bids BIDS_DIR OUT_DIR participant --participant-label 01 02 --preset consensus2024
  qsmjax bids BIDS_DIR OUT_DIR participant --derivatives BIDS_DIR/derivatives/synthstrip --jobs 4
  qsmjax bids BIDS_DIR OUT_DIR participant --scheduler tcp://node1:8786     on a Dask cluster that runs
  qsmjax bids BIDS_DIR OUT_DIR group --derivatives SEGMENTATIONS   a table of regions, and a page of all maps

A scan whose map stands in OUT_DIR is skipped. One that fails is told with its reason, and the rest go on: the exit
status is then 1. Masks (*_mask.nii.gz) and segmentations (*_dseg.nii.gz) are taken from the derivatives that are named.
"""

import argparse
import importlib.metadata
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from qsmjax.cli.errors import UserError
from qsmjax.cli.infer import positive
from qsmjax.cli.memory import memory_of
from qsmjax.cli.participant import RAW, Job, Outcome, Settings
from qsmjax.cli.pool import room, run_here
from qsmjax.cli.stages import PRESETS, choose_stages
from qsmjax.io.aside import write_aside
from qsmjax.io.bids import Run, check_label, find_runs
from qsmjax.io.sidecar import load_json, save_json
from qsmjax.phase.scaling import PhaseUnits

GIB = 2**30
IGNORED = "figures\nlogs\ngroup_*\n"
README = """Susceptibility maps by qsmjax.

`*_Chimap.nii.gz` is in ppm, paramagnetic positive, zero outside `*_desc-qsm_mask.nii.gz`; its JSON names every method
and parameter. `*_desc-std_Chimap.nii.gz` is its standard deviation. `fmap/` holds the total field and its noise in Hz.
`logs/` says why a scan has no map.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `bids`."""
    add = parser.add_argument
    add("bids_dir", metavar="BIDS_DIR", help="the dataset")
    add("out_dir", metavar="OUT_DIR", help="root of the derivatives; made if it is not there")
    add("level", choices=("participant", "group"), help="a map for each scan, or what all maps give together")
    add("--participant-label", nargs="+", default=[], metavar="LABEL", help="with or without sub-; default: all")
    add("--session-label", nargs="+", default=[], metavar="LABEL", help="with or without ses-; default: all")
    add("--derivatives", nargs="+", default=[], metavar="DIR", help="datasets with masks (and segmentations: group)")
    add("--preset", choices=PRESETS, default="default", help="methods of all stages")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--method", metavar="NAME", help="see qsmjax infer --list-methods; default: learned")
    choice.add_argument("--workdir", help="use the network trained there")
    add("--set", action="append", default=[], metavar="[STAGE.]KEY=VALUE", help="an option of a stage; repeatable")
    add(
        "--phase-units",
        choices=get_args(PhaseUnits),
        default="auto",
        help="of stored phase; default: by rule, else refused",
    )
    add(
        "--reference", choices=("mean", "none"), default="mean", help="what counts as zero; default: mean over the mask"
    )
    add("--nan-to-mask", action="store_true", help="take voxels of NaN or infinity out of the mask")
    add("--jobs", type=int, default=1, metavar="N", help="scans at a time on this machine")
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster that runs (pip install 'qsmjax[cluster]')")
    add("--memory", type=positive, metavar="GIB", help="that all jobs may take here; default: 9/10 of what is free")
    add("--again", action="store_true", help="do finished scans again")
    add("--save-stages", action="store_true", help="keep the local field too")
    add("--no-figure", action="store_true", help="draw no pictures")
    add("--quiet", action="store_true", help="say nothing but failures")


def run(args: argparse.Namespace) -> int:
    """Run `bids`.

    Returns:
      The exit status: 1 if a scan failed.
    """
    subjects = [check_label("--participant-label", text, "sub") for text in args.participant_label]
    sessions = [check_label("--session-label", text, "ses") for text in args.session_label]
    if args.jobs < 1:
        raise UserError(f"--jobs must be 1 or more, got {args.jobs}")
    # whole paths: another machine has another working directory
    root, out = Path(args.bids_dir).absolute(), Path(args.out_dir).absolute()
    for folder in args.derivatives:
        if not Path(folder).is_dir():
            raise UserError(f"--derivatives must be folders, got {folder}")
    runs = find_runs(root, subjects, sessions)
    if out.resolve() == root.resolve():
        raise UserError(f"OUT_DIR must not be the dataset itself, got {out}: try {out}/derivatives/qsmjax")
    describe_dataset(root, out)
    if args.level == "group":
        from qsmjax.cli.bids_group import summarise  # the participants pay for nothing of it

        return summarise(runs, out, [*map(Path, args.derivatives)], quiet=args.quiet)
    return _participants(runs, root, out, args)


def describe_dataset(root: Path, out: Path) -> None:
    """Write what makes a folder a derivative dataset.

    Raises:
      UserError: if it holds another dataset.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / "dataset_description.json"
    if file.exists():
        makers = load_json(file).get("GeneratedBy")
        names = [maker.get("Name") for maker in makers if isinstance(maker, dict)] if isinstance(makers, list) else []
        if "qsmjax" not in names:
            raise UserError(f"OUT_DIR must be empty or made by qsmjax, got another dataset in {out}: choose another")
    raw = root / "dataset_description.json"
    source = load_json(raw) if raw.is_file() else {}
    described = {
        "Name": f"Susceptibility maps of {source.get('Name') or root.resolve().name}",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "qsmjax", "Version": importlib.metadata.version("qsmjax")}],
        "DatasetLinks": {RAW: os.path.relpath(root.resolve(), out.resolve())},
    }
    described |= {key: source[key] for key in ("License", "Authors") if source.get(key)}
    save_json(file, described)
    for name, text in ((".bidsignore", IGNORED), ("README.md", README)):
        with write_aside(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _participants(runs: list[Run], root: Path, out: Path, args: argparse.Namespace) -> int:
    # a scan of magnitude alone is no failure, unless its participant was asked for
    odd = [run for run in runs if run.magnitude_alone and not args.participant_label]
    runs = [run for run in runs if run not in odd]
    if not runs:
        raise UserError(f"{root} must hold MEGRE, T2starw or GRE with phase, or real and imaginary parts, got none")
    told = ("preset", "method", "set", "workdir", "phase_units", "reference", "nan_to_mask")
    methods = {key: getattr(args, key) for key in told}
    methods["set"] = tuple(methods["set"])
    methods["workdir"] = args.workdir and str(Path(args.workdir).absolute())
    derivatives = tuple(Path(folder).absolute() for folder in args.derivatives)
    settings = Settings(root, out, derivatives, methods, args.again, not args.no_figure, args.save_stages)
    # an option that is wrong is wrong for all
    choose_stages(settings.arguments(runs[0]))
    say = (lambda text: None) if args.quiet else (lambda text: print(text, flush=True))
    for run in odd:
        say(f"{run.stem}: left out: {run.problem}")
    jobs = [Job(run, settings, memory_of(run)) for run in runs]
    counts: Counter[str] = Counter()
    for outcome in _outcomes(jobs, args):
        counts[outcome.state] += 1
        line = f"{outcome.name}: {outcome.state}: {outcome.words}"
        if outcome.state == "failed":
            print(line, file=sys.stderr, flush=True)
        else:
            say(line + (f" ({outcome.seconds:.1f} s)" if outcome.state == "done" else ""))
    failed = counts["failed"]
    say(f"{counts['done']} maps made, {counts['skipped']} skipped, {failed} failed, of {len(jobs)} scans")
    return 1 if failed else 0


def _outcomes(jobs: list[Job], args: argparse.Namespace) -> Iterator[Outcome]:
    if args.scheduler:
        from qsmjax.cli.cluster import run_on_cluster  # an extra

        yield from run_on_cluster(jobs, args.scheduler)
        return
    memory = room(int(args.memory * GIB) if args.memory else None)
    fitting = []
    for job in jobs:
        if job.memory <= memory:
            fitting.append(job)
            continue
        words = f"a scan must fit into memory, got about {job.memory / GIB:.1f} GiB for {memory / GIB:.1f}"
        yield Outcome(job.name, "failed", f"{words}: crop it, raise --memory, or use a machine with more")
    yield from run_here(fitting, workers=min(args.jobs, max(len(fitting), 1)), memory=memory)
