"""How often wrong inputs are warned about, and right ones too: `evaluation.guards` on simulated heads.

    python benchmarks/guards.py LABELS FIGURES.jsonl              heads 01 to 12, a scan each with air, bone and neck
    python benchmarks/guards.py LABELS FIGURES.jsonl --rounds 2   two scans each

LABELS holds head_01.nii.gz and so on. Every scan has its own voxel size, tilt, field strength, noise, age and lesions.
Right inputs: the local field at its noise and at three times it, and what the default background method leaves of the
total field; each by the learned inversion, TV and TKD. What iSMV and V-SHARP leave stands by itself. Wrong ones: those
times 2 pi and over 2 pi, those negated, the total field taken for a local one, and fields without what is smoother than
40, 20 and 12 mm. The figures that the guards look at are kept in FIGURES.jsonl, so that a call that was stopped goes on
and limits can be chosen without new scans. Limits were chosen on heads 01 to 08; 09 to 12 judge. Prints both.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from scipy.ndimage import gaussian_filter

from qsmjax.cli.simulate import LESIONS, read_head
from qsmjax.evaluation.guards import Figures, alarms, figures_of
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.pipeline import BACKGROUNDS
from qsmjax.simulate.scan import grid_around, scan

TE = {1.5: (0.010, 0.020, 0.030, 0.040), 3.0: (0.006, 0.012, 0.018, 0.024), 7.0: (0.004, 0.008, 0.012, 0.016)}
LEFT = {"ismv": "left by ismv", "vsharp": "left by vsharp"}
"""Neither right nor wrong: on heads with air and bone they leave a quarter to a half of the field's norm."""
CHOSEN_ON = 8
"""Heads up to this number chose the limits."""
BACKGROUND = "tfi"
"""The default."""
FINE = 1.0
"""The scans' own sampling [mm]: the guards look at nothing as fine."""


def main() -> None:
    """Simulate what is missing, and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--heads", type=int, nargs="+", default=range(1, 13), metavar="N", help="those to scan, of 1 to 12"
    )
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.figures.read_text().splitlines()] if args.figures.exists() else []
    if any(row.get("background") != BACKGROUND for row in rows):
        raise SystemExit(f"{args.figures} must hold figures of scans by {BACKGROUND}, got others: name another file")
    for turn in range(args.rounds):
        for number in args.heads:
            if not any(row["head"] == number and row["round"] == turn for row in rows):
                made = [
                    {"head": number, "round": turn, "background": BACKGROUND, **row}
                    for row in one_scan(args.labels, number, turn)
                ]
                rows += made
                with args.figures.open("a") as file:
                    file.writelines(json.dumps(row) + "\n" for row in made)
                print(f"head {number:02d}, round {turn}: {len(made)} fields", flush=True)
    for name, part in (
        (f"heads 01-{CHOSEN_ON:02d}, which chose the limits", [r for r in rows if r["head"] <= CHOSEN_ON]),
        (f"heads {CHOSEN_ON + 1:02d}-12, which judge", [r for r in rows if r["head"] > CHOSEN_ON]),
    ):
        if part:
            print(name)
            table(part)


def table(rows: list[dict]) -> None:
    """Print how many of each case were warned about."""
    cases: dict[str, list[bool]] = {}
    for row in rows:
        found = Figures(**row["figures"])
        if row["case"] != "right":
            cases.setdefault(row["case"], []).append(bool(alarms(found)))
            continue
        cases.setdefault("right", []).append(bool(alarms(found)))
        cases.setdefault("times 2 pi", []).append(bool(alarms(scaled(found, 2 * np.pi))))
        cases.setdefault("over 2 pi", []).append(bool(alarms(scaled(found, 1 / (2 * np.pi)))))
        cases.setdefault("negated", []).append(bool(alarms(scaled(found, -1))))
    for case, told in cases.items():
        print(f"  {case:32} {sum(told):4d} of {len(told):4d} warned about ({100 * np.mean(told):.1f} %)")
    wrong = [flag for case, told in cases.items() if case not in ("right", *LEFT.values()) for flag in told]
    print(f"  {'all that is wrong':32} {sum(wrong):4d} of {len(wrong):4d} warned about ({100 * np.mean(wrong):.1f} %)")


def scaled(found: Figures, factor: float) -> Figures:
    """Return the figures of a field times a factor: methods whose weight follows the noise scale with it."""
    return dataclasses.replace(
        found,
        span=abs(factor) * found.span,
        std=abs(factor) * found.std,
        balance=found.balance * np.sign(factor),
    )


def one_scan(labels: Path, number: int, turn: int) -> Iterator[dict]:
    """Scan a head, and give the figures of each of its fields."""
    key = jax.random.fold_in(jax.random.key(77 + turn), number)
    rng = np.random.default_rng([number, turn])
    b0 = float(rng.choice(list(TE)))
    lesions = LESIONS[str(rng.choice(["none", "few", "many"]))]
    head = read_head(key, labels / f"head_{number:02d}.nii.gz", lesions=lesions, age=float(rng.uniform(22, 80)))
    angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(1.8, 2.6, 3)
    grid = grid_around(head, size, tilt=np.radians(rng.uniform(0, 40)), about=(np.cos(angle), np.sin(angle), 0))
    made = scan(key, head, grid, b0=b0, te=TE[b0], snr=rng.uniform(50, 150), background=True, fine_voxel=FINE)
    local = made.local
    mask, noise = np.asarray(local.mask), np.asarray(local.noise)
    # the local one has its noise already
    total = field_map(made.total + np.asarray(local.field) - made.clean, mask, local.geometry, noise=noise)
    louder = np.asarray(local.field) + np.sqrt(8) * noise * rng.normal(size=mask.shape)
    right = {
        "local": local,
        "three times the noise": field_map(louder, mask, local.geometry, noise=3 * noise),
        **{name: BACKGROUNDS[name](total) for name in (BACKGROUND, *LEFT)},
    }
    for name, field in right.items():
        for method in ("learned_total" if name == BACKGROUND else "learned", "tv", "tkd"):
            yield record(LEFT.get(name, "right"), f"{name}, {method}", field, method)
    yield record("total field taken for a local one", "", total, "tkd")
    for width in (40, 20, 12):
        for name, field in {"local": local, "total": total, BACKGROUND: right[BACKGROUND]}.items():
            filtered = field_map(without_smooth(field, width), field.mask, field.geometry, noise=field.noise)
            yield record(f"without > {width} mm", name, filtered, "tkd")


def record(case: str, what: str, field: FieldMap, method: str) -> dict:
    """Invert a field and take down what the guards look at."""
    made = INVERSIONS[method](field)
    # as the command line judges what was inverted
    return {"case": case, "what": what, "figures": dataclasses.asdict(figures_of(made.local or field, made.chi))}


def without_smooth(field: FieldMap, width: float) -> np.ndarray:
    """Subtract the mean over a Gaussian window of a width (full, at half maximum) [mm] within the mask."""
    mask, values = np.asarray(field.mask, float), np.asarray(field.field)
    sigma = width / 2.355 / np.asarray(field.geometry.voxel_size)
    smooth = gaussian_filter(values * mask, sigma) / np.maximum(gaussian_filter(mask, sigma), 1e-3)
    return np.where(mask > 0, values - smooth, 0)


if __name__ == "__main__":
    main()
