"""Train small QSMnets that differ in one thing each, for the same time, and hold them against one another.

    python benchmarks/ablations.py train OUT --chi MAPS [--seconds 30] [--budget 480] [--only all l1] [--set width=4]
    python benchmarks/ablations.py judge OUT LABELS_DIR --cache CACHE [--only all l1] [--upright] [--voxel 2]

`train` takes chi maps as `train.py --data` does. The networks take turns on one device, next the one with the least
time so far, so that all get the same seconds by the clock, without compilation; the rate's cosine follows each
network's own clock. --budget is the longest that all of it may take, from the start of the program [s]: where
compilation was slow, training is cut short. OUT gets NAME.safetensors, half precision, 1.5 MB each; what is finished
there is not trained again, and every minute all are saved as they are.

`judge` prints a table in Markdown: scans of heads that no network was trained on, on the networks' own grid: both
upright, the first one turned by 30 degrees, the second one with lesions. CACHE keeps scans and figures, as it does for
`benchmarks/conditions.py`, which has other conditions.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from turns import Training, compile_steps, first_state

from qsmjax.io.weights import load_weights
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.training.config import TrainConfig, with_settings
from qsmjax.training.data import Maps, Patches
from qsmjax.training.files import load_maps
from qsmjax.training.presets import preset
from qsmjax.training.samples import B0_DIR
from qsmjax.training.state import TrainState

BEGUN = time.monotonic()


class Variant(NamedTuple):
    """What a network differs in.

    Attributes:
      settings: of the training.
      outer: whether its fields are cut from the whole head's, as the paper's, and hold what lies outside the patch;
        otherwise they are made of what lies inside.
    """

    settings: tuple[str, ...] = ()
    outer: bool = False


def _losses(l1: float, model: float, gradient: float) -> Variant:
    return Variant((f"loss_l1={l1}", f"loss_model={model}", f"loss_gradient={gradient}"))


VARIANTS = {
    "all": Variant(),
    "l1": _losses(1, 0, 0),
    "model": _losses(0, 0.5, 0),
    "gradient": _losses(0, 0, 0.1),
    "l1_model": _losses(1, 0.5, 0),
    "l1_gradient": _losses(1, 0, 0.1),
    "model_gradient": _losses(0, 0.5, 0.1),
    "not_turned": Variant(("rotation=0",)),
    "wider_range": Variant(("chi_scale=0.5,4", "negate=0.5")),
    # as many voxels a step as four patches of 64
    "patch_32": Variant(("patch=32", "batch=32")),
    "patch_48": Variant(("patch=48", "batch=9")),
    "outer_64": Variant(("rotation=0",), outer=True),
    "outer_32": Variant(("rotation=0", "patch=32", "batch=32"), outer=True),
    # the same once more from another seed: what differences mean nothing
    "all_again": Variant(("seed=1",)),
}
"""By name; `all` is what the others change one thing of: three losses, turned by up to 30 degrees, patches of 64."""

NARROWER = ("width=12",)
"""On top of the preset qsmnet_narrow: 0.8 million weights."""
SAVED = 60.0
"""Seconds between two savings of all."""
LAST = 10.0
"""Seconds of the budget that are left for the last one."""


def begin(names: list[str], settings: list[str], maps: list[Maps]) -> list[Training]:
    """Begin the trainings; what some have in common is made once."""
    patches: dict[Any, Patches] = {}
    states: dict[int, TrainState] = {}
    trainings = []
    for name in names:
        config = with_settings(preset("qsmnet_narrow"), [*NARROWER, *settings, *VARIANTS[name].settings])
        key = (config.patch, config.batch, config.seed)
        if key not in patches:
            patches[key] = Patches(config, maps)
        if config.seed not in states:
            states[config.seed] = first_state(config)
        trainings.append(Training(name, config, patches[key], states[config.seed], outer=VARIANTS[name].outer))
    return trainings


def whole_heads(folder: Path, config: TrainConfig) -> list[Maps]:
    """Read the maps, and make the field of each whole head, B0 along the third axis."""
    maps = load_maps(folder, config)
    # one shape for all, so that the field is compiled once
    x, y, z = np.max([m.chi.shape for m in maps], 0).tolist()
    grid = geometry((x, y, z), config.voxel_size, B0_DIR)
    make = jax.jit(lambda chi: forward_field(chi, grid))
    padded = lambda array: np.pad(array, [(0, n - m) for n, m in zip((x, y, z), array.shape)])
    fields = [np.asarray(make(padded(m.chi))) * padded(m.mask) for m in maps]
    return [Maps(m.name, padded(m.chi), padded(m.mask), field) for m, field in zip(maps, fields)]


def is_finished(path: Path) -> bool:
    """Tell whether a network's training came to its end."""
    return path.is_file() and bool(load_weights(path)[1]["finished"])


def train(args: argparse.Namespace) -> None:
    """Train all that are not there yet, in turns."""
    say = lambda line: print(f"{time.monotonic() - BEGUN:6.1f} s  {line}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    names = [name for name in args.only or VARIANTS if not is_finished(args.out / f"{name}.safetensors")]
    if not names:
        return
    maps = whole_heads(args.chi, with_settings(preset("qsmnet_narrow"), args.set))
    trainings = begin(names, args.set, maps)
    say(f"{len(maps)} maps, {len(trainings)} networks, {jax.devices()[0].device_kind}")
    compile_steps(trainings)
    left = (args.budget - LAST - (time.monotonic() - BEGUN)) / len(trainings)
    seconds = max(min(args.seconds, left), 1.0)
    say(f"compiled; {seconds:.1f} s for each network")

    def save(*, finished: bool) -> None:
        for training in trainings:
            training.save(args.out, f"{len(maps)} simulated heads", finished=finished)

    saved = time.monotonic()
    while trainings and (behind := min(trainings, key=lambda t: t.seconds)).seconds < seconds:
        behind.turn(seconds)
        if not np.isfinite(behind.terms).all():
            # the others go on
            say(f"{behind.name} is given up: losses {behind.terms} by step {behind.taken}")
            trainings.remove(behind)
        if time.monotonic() - saved > SAVED:
            save(finished=False)
            saved = time.monotonic()
            say(f"{behind.seconds:.1f} s each; {behind.name} at step {behind.taken}")
    save(finished=True)
    for t in trainings:
        terms = ", ".join(f"{name} {value:.3f}" for name, value in zip(("L1", "model", "gradient"), t.terms))
        say(f"{t.name}: {t.taken} steps of {t.config.batch} patches in {t.seconds:.1f} s; last losses {terms}")


def judge(args: argparse.Namespace) -> None:
    """Print what each network makes of heads that it never saw, beside TKD and the QSMnet that is shipped."""
    # training must do without the libraries of the stages before the inversion
    from conditions import Condition, Row, mean_figures, print_table

    upright = Condition(voxel=args.voxel)
    rows = []
    for name in ["tkd", "qsmnet", *(args.only or VARIANTS)]:
        file = args.out / f"{name}.safetensors"
        if name in VARIANTS and not file.is_file():
            continue
        card = load_weights(file)[1] if name in VARIANTS else {}
        found = partial(mean_figures, str(file) if card else name, labels=args.labels, cache=args.cache)
        plain = found(Row("", upright), args.heads)
        row = {
            "network": name,
            "steps": str(card.get("step", "")),
            "NRMSE [%]": f"{plain['nrmse']:.1f}",
            "xSIM": f"{plain['xsim']:.3f}",
            "HFEN [%]": f"{plain['hfen']:.1f}",
            "deep grey [%]": f"{plain['nrmse_dgm']:.1f}",
            "pallidum": f"{plain['pallidum']:.2f}",
        }
        if not args.upright:
            turned = found(Row("", upright._replace(turn=30.0)), args.heads[:1])
            ill = found(Row("", upright._replace(lesions=True)), args.heads[-1:])
            row |= {
                "turned 30°: NRMSE [%]": f"{turned['nrmse']:.1f}",
                "with lesions: NRMSE [%]": f"{ill['nrmse']:.1f}",
                "calcification": f"{ill['calcification']:.2f}",
                "haemorrhage": f"{ill['haemorrhage']:.2f}",
            }
        rows.append(row)
        print(" ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    print()
    print_table(rows)


def main() -> None:
    """Train or judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.add_argument("out", type=Path)
    training.add_argument("--chi", type=Path, required=True)
    training.add_argument("--seconds", type=float, default=30.0, help="of each network")
    training.add_argument("--budget", type=float, default=np.inf, help="seconds of all, from the program's start")
    training.add_argument("--only", nargs="+", choices=VARIANTS)
    training.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of every training")
    training.set_defaults(run=train)
    judging = commands.add_parser("judge")
    judging.add_argument("out", type=Path)
    judging.add_argument("labels", type=Path)
    judging.add_argument("--cache", type=Path, required=True)
    judging.add_argument("--only", nargs="+", choices=VARIANTS)
    judging.add_argument("--heads", type=int, nargs="+", default=(11, 12))
    judging.add_argument("--upright", action="store_true", help="neither the turned scan nor that with lesions")
    judging.add_argument("--voxel", type=float, default=1.0, help="edge [mm]")
    judging.set_defaults(run=judge)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
