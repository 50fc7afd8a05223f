"""Which method stands in which slot, and with what options: presets, then `--set STAGE.KEY=VALUE`."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from qsmjax import pipeline
from qsmjax.cli import methods
from qsmjax.cli.errors import UserError
from qsmjax.cli.settings import options_of, parse_settings
from qsmjax.inference.shipped import INVERSIONS, NETWORKS, shipped_network
from qsmjax.inversion import taken
from qsmjax.phase.mask import magnitude_mask
from qsmjax.phase.offsets import mcpc_3ds
from qsmjax.physics.field_map import FieldMap
from qsmjax.recon.reconstruct import reconstruct

BEFORE = {
    "localfield": (),
    "totalfield": ("background",),
    "phase": ("coils", "mask", "field", "background"),
    "kspace": ("recon", "mask", "field", "background"),
}
"""The slots before the inversion, by what is given. "coils" is for images that are not combined, "mask" for no mask."""

INPUTS = tuple(BEFORE)

PRESETS: dict[str, dict[str, str]] = {
    "default": {},
    "consensus2024": {
        "field.residual": "0.3",
        "field.erode": "1",
        "background.method": "vsharp",
        "background.radii": "12,11,10,9,8,7,6,5,4,3,2,1",
        "inversion.method": "nltv",
        "inversion.toolbox_alpha": "5e-4",
        "inversion.max_iterations": "400",
    },
    "fast": {"background.method": "vsharp", "inversion.method": "tkd"},
}
"""What differs from the defaults. consensus2024: Bilgic et al., Magn. Reson. Med. (2024), doi:10.1002/mrm.30006; its
radii, there in voxels, are mm here, and those below half a voxel are left out."""

METHODS: dict[str, dict[str, Callable]] = {
    "recon": {"grappa": reconstruct},
    "coils": {"mcpc_3ds": mcpc_3ds},
    "mask": {"magnitude_mask": magnitude_mask},
    "field": {"fit": pipeline.total_field},
    "background": pipeline.BACKGROUNDS,
    "inversion": INVERSIONS,
}
"""What fits a slot, by the name that the command line takes."""

DEFAULTS = {"background.method": "tfi", "inversion.method": "learned"}

TRAINED_FOR = {("tfi", "learned"): "learned_total"}
"""What an inversion is after a removal of the background that has weights of its own."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A method in its slot.

    Attributes:
      name: the method's.
      run: the method.
      options: those that were set, typed.
      describe: FieldMap -> what the method does to that scan beforehand, in lines.
      card: () -> what a network's file says of it; empty for other methods.
    """

    name: str
    run: Callable
    options: dict[str, Any]
    describe: Callable[[FieldMap], list[str]] = lambda _: []
    card: Callable[[], Mapping[str, Any]] = dict

    @property
    def parameters(self) -> dict[str, Any]:
        """All options, those not set at their defaults."""
        return {key: option.default for key, option in options_of(self.run).items()} | self.options


def choose_stages(args: argparse.Namespace) -> dict[str, Stage]:
    """Fill the slots that the input needs (`BEFORE`), and "inversion".

    A method that takes the total field itself leaves "background" out. The learned inversion has weights of its own for
    what the default removal leaves.

    An option without a stage is the inversion's.

    Raises:
      UserError: if a stage, a method or an option is unknown, or an option belongs to a stage that the input skips.
    """
    absent = [] if args.coils else ["coils"]
    absent += ["mask"] if args.mask else []
    slots = [*(slot for slot in BEFORE[args.input] if slot not in absent), "inversion"]
    words = DEFAULTS | PRESETS[args.preset]
    given = {"inversion.method": args.method} if args.method else {}
    for pair in args.set:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set must be KEY=VALUE, got {pair!r}")
        key = key if "." in key else f"inversion.{key}"
        if key.partition(".")[0] not in slots:
            why = {"mask": " with --mask", "coils": ": say --coils"}.get(key.partition(".")[0], "")
            why = why if key.partition(".")[0] in BEFORE[args.input] else ""
            raise UserError(f"--set {key} must name a stage among {', '.join(slots)} for --input {args.input}{why}")
        given[key] = text
    # a preset's options are for the preset's method
    others = [
        key.partition(".")[0] for key, text in given.items() if key.endswith(".method") and text != words.get(key)
    ]
    others += ["inversion"] if args.workdir else []
    words = {key: text for key, text in words.items() if key.partition(".")[0] not in others} | given
    both = (words.get("background.method", ""), words.get("inversion.method", ""))
    if "background" in slots and both in TRAINED_FOR:
        words["inversion.method"] = TRAINED_FOR[both]
        # of a total field all background is taken out
        words.pop("inversion.residue", None)
    invert = _stage("inversion", words, args.workdir)
    if taken(invert.run) == "totalfield":
        if args.input == "localfield":
            raise UserError(
                f"--method {invert.name} must get a total field, got --input localfield: say totalfield or phase"
            )
        if any(pair.startswith("background.") for pair in args.set):
            raise UserError(f"--set background.* must go with a method that takes a local field, got {invert.name}")
        slots = [slot for slot in slots if slot != "background"]
    return {slot: invert if slot == "inversion" else _stage(slot, words, None) for slot in slots}


def with_residue_removed(stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """Return the stages that made a map where the inversion found a residue of background: that was removed first."""
    removal, inversion = "tfi", stages["inversion"]
    options = {key: value for key, value in inversion.options.items() if key != "residue"}
    followed = _stage("inversion", {"inversion.method": TRAINED_FOR[removal, inversion.name]}, None)
    return {
        **{slot: stage for slot, stage in stages.items() if slot != "inversion"},
        "residue": _stage("background", {"background.method": removal}, None),
        "inversion": dataclasses.replace(followed, options=options),
    }


def made_by(inversion: Stage, sidecar: Mapping[str, Any]) -> bool:
    """Say whether the map that a sidecar tells of was made by an inversion, its other weights included."""
    names = {inversion.name} | (
        {TRAINED_FOR.get(("tfi", inversion.name))} if "residue" in sidecar.get("Stages", ()) else set()
    )
    return sidecar.get("Method") in names


def _stage(slot: str, words: dict[str, str], workdir: str | None) -> Stage:
    given = {key.partition(".")[2]: text for key, text in words.items() if key.startswith(f"{slot}.")}
    name = given.pop("method", "")
    if workdir:
        from qsmjax.inference.network import load_network  # networks' libraries are not paid for by other methods

        network = load_network(workdir)
        pairs = [f"{key}={text}" for key, text in given.items()]
        options = parse_settings(pairs, options_of(network.invert), network.name)
        return Stage(network.name, network.invert, options, network.describe, lambda: network.card)
    # a slot that one method fits has no default
    name = name or next(iter(METHODS[slot]))
    run = methods.choose(name, METHODS[slot], what="--method" if slot == "inversion" else f"--set {slot}.method")
    pairs = [f"{key}={text}" for key, text in given.items()]
    for key in given if slot == "inversion" else ():
        having = [other for other, method in INVERSIONS.items() if key in options_of(method)]
        if having and name not in having:
            near = "tv" if "tv" in having else having[0]
            raise UserError(f"--set {key} must go with a method that has it, such as --method {near}, got {name}")
    options = parse_settings(pairs, options_of(run), name)
    if slot != "inversion" or name not in NETWORKS:
        return Stage(name, run, options)
    # a shipped network is loaded once it runs
    describe, card = lambda scan: shipped_network(name).describe(scan), lambda: shipped_network(name).card
    return Stage(name, run, options, describe, card)
