"""Files of echoes as a scanner stores them, phase and magnitude or real and imaginary parts, to complex echoes."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from qsmjax.cli.errors import UserError
from qsmjax.cli.scan import as_magnitude, on_grid, read_mask, single_volume, without_nan
from qsmjax.cli.stages import Stage
from qsmjax.io.nifti import NiftiVolume, load_volume
from qsmjax.phase.echoes import echoes_from_phase
from qsmjax.phase.scaling import complex_from_parts, phase_rule


class Stored(NamedTuple):
    """What files of echoes hold.

    Attributes:
      first: the first file of phase, or of real parts, whose geometry the output takes.
      values: phase as the header scales it, or both parts as complex numbers; echo x y z, or echo coil x y z.
      magnitude: alike; None where there is none.
    """

    first: NiftiVolume
    values: np.ndarray
    magnitude: np.ndarray | None

    @property
    def coils(self) -> bool:
        """Whether the coils are still apart."""
        return self.values.ndim == 5


class Echoes(Sequence[Any]):
    """Complex echoes, coil x y z, each made as it is asked for: all coils' would be the most that is held in memory."""

    def __init__(self, make: Callable[[int], Complex[Array, "coil x y z"]], count: int):
        self._make, self._count = make, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, n: Any) -> Any:
        return self._make(n)

    def combined(self) -> Complex[Array, "echo x y z"]:
        """Return those of one coil, or of combined ones, at once."""
        return jnp.concatenate([self[n] for n in range(len(self))])


def read_stored(
    main: Sequence[Path], imaginary: Sequence[Path] = (), magnitudes: Sequence[Path] = (), *, coils: bool = False
) -> Stored:
    """Load phase, or real parts with the imaginary ones, and magnitudes: a file an echo, or one file of all.

    Args:
      main: files of phase, or of real parts.
      imaginary: files of imaginary parts, which tell the magnitude too; none with phase.
      magnitudes: files; may be none.
      coils: whether the fourth axis of the files are coils, and the fifth, of one file, the echoes.

    Raises:
      UserError: if they do not lie on one grid, differ in number, or phase has several scale factors.
      ValueError: from the reader, alike.
    """
    if coils and not (imaginary or magnitudes):
        raise UserError("--magnitude must be given with --coils, by which the coils are weighed, got none")
    first, values = _stack(main, "real part" if imaginary else "phase", coils)
    if imaginary:
        values = values + 1j * _like(values, first, imaginary, "imaginary part")
        return Stored(first, values, as_magnitude(np.abs(values)))
    magnitude = as_magnitude(_like(values, first, magnitudes, "magnitude")) if magnitudes else None
    return Stored(first, values, magnitude)


def head_of(
    stored: Stored, mask: str | Path | None, how: str, stages: Mapping[str, Stage]
) -> tuple[np.ndarray, list[str]]:
    """Return where the head is, by a file or else the magnitude, and notes.

    Args:
      stored: echoes.
      mask: a file; None to find the head.
      how: in which way a user gives a mask, in words.
      stages: the methods in their slots, "mask" among them where there is no file.

    Raises:
      UserError: if there is neither, or the file does not fit.
    """
    if mask is not None:
        return read_mask(load_volume(mask), stored.first)
    if stored.magnitude is None:
        raise UserError(f"a mask must be given {how} where there is no magnitude to find the head from, got neither")
    note = f"mask found from the magnitude: it holds all that gives signal; give a brain mask {how}"
    magnitude = np.sqrt(np.sum(np.square(stored.magnitude), axis=1)) if stored.coils else stored.magnitude
    return np.asarray(stages["mask"].run(magnitude, **stages["mask"].options)), [note]


def complex_echoes(
    stored: Stored, mask: np.ndarray, args: argparse.Namespace, manufacturer: str | None
) -> tuple[Echoes, np.ndarray, list[str]]:
    """Make complex echoes, phase by the rule that fits the file it is from, or by --phase-units: parts need none.

    Args:
      stored: echoes.
      mask: where the head is.
      args: those of `infer`; `nan_to_mask` and `phase_units` count.
      manufacturer: as a sidecar spells it, where one does.

    Returns:
      The echoes, the mask without what is not finite, where that is wanted, and notes.

    Raises:
      UserError: if something in the mask is not finite.
      ValueError: if phase follows no rule.
    """
    parts = np.iscomplexobj(stored.values)
    named = "real and imaginary parts" if parts else str(stored.first.path)
    flat = stored.values.reshape(-1, *stored.values.shape[-3:])
    values, mask, notes = without_nan(flat, mask, named, to_mask=args.nan_to_mask)
    count = len(stored.values)
    by_echo = lambda volumes: volumes.reshape(count, -1, *values.shape[1:])
    echoes = by_echo(values)
    if parts:
        make = lambda n: complex_from_parts(echoes[n].real, echoes[n].imag, manufacturer=manufacturer)
        return Echoes(make, count), mask, [*notes, "echoes from real and imaginary parts"]
    rule = phase_rule(
        values,
        units=args.phase_units,
        scl_slope=stored.first.slope,
        scl_inter=stored.first.intercept,
        stored_as_float=stored.first.stored_as_float,
        manufacturer=manufacturer,
    )
    magnitude = None if stored.magnitude is None else by_echo(stored.magnitude)
    make = lambda n: echoes_from_phase(rule.radians(echoes[n]), None if magnitude is None else magnitude[n])
    return Echoes(make, count), mask, [*notes, f"phase scaled as {rule.words}"]


def _stack(paths: Sequence[Path], name: str, coils: bool = False) -> tuple[NiftiVolume, np.ndarray]:
    """Stack one file an echo, or one file with the echoes on its last axis, to echo (coil) x y z."""
    if coils:
        return _stack_coils(paths, name)
    first, *rest = (load_volume(path) for path in paths)
    _check_factor(first, rest, name)
    several = sum(n != 1 for n in first.shape[3:])
    if not rest and several < 2:
        return first, np.moveaxis(first.data.reshape(*first.shape[:3], -1), -1, 0)
    if several == 2 or (rest and several):
        raise UserError(
            f"{first.path} must hold one volume, or one file all echoes, got shape {first.shape}: split it, one file "
            "each; of images of single coils say --coils to qsmjax infer"
        )
    return first, np.stack([single_volume(first), *(on_grid(v, first, name) for v in rest)])


def _stack_coils(paths: Sequence[Path], name: str) -> tuple[NiftiVolume, np.ndarray]:
    """Stack coils file by file: all coils of all echoes are the most that is held in memory."""
    first = load_volume(paths[0])
    several, shape = len(paths) > 1, first.shape
    count = len(paths) if len(shape) == 4 else shape[-1]
    stacked = np.empty((count, *shape[3:4], *shape[:3]), np.float32)
    for number, path in enumerate(paths):
        file = load_volume(path) if number else first
        if (len(shape) != 4 and (several or len(shape) != 5)) or file.shape != shape:
            raise UserError(
                f"{name} must be x y z coil, a file an echo, or one file x y z coil echo, with --coils, got "
                f"{file.shape} in {path}"
            )
        _check_factor(first, [file], name)
        on_grid(dataclasses.replace(file, data=file.data.reshape(*shape[:3], -1)[..., 0]), first, name)
        if len(shape) == 5:
            stacked[:] = np.moveaxis(file.data, (-1, -2), (0, 1))
        else:
            stacked[number] = np.moveaxis(file.data, -1, 0)
    return dataclasses.replace(first, data=stacked[0, 0]), stacked


def _check_factor(first: NiftiVolume, others: Sequence[NiftiVolume], name: str) -> None:
    if name == "phase" and any(v.slope != first.slope or v.intercept != first.intercept for v in others):
        raise UserError("the phase files must share one scale factor, got several: convert them together")


def _like(values: np.ndarray, first: NiftiVolume, paths: Sequence[Path], name: str) -> np.ndarray:
    """Stack files that must be as many echoes, and coils, on the grid of others."""
    other, found = _stack(paths, name, values.ndim == 5)
    if found.shape != values.shape:
        raise UserError(
            f"{name} must have the {len(values)} echoes of {values.shape[1:]} that {first.path} has, got "
            f"{len(found)} of {found.shape[1:]} in {other.path}: give files of the same echoes"
        )
    # the others were held against their first
    on_grid(dataclasses.replace(other, data=found[(0,) * (found.ndim - 3)]), first, name)
    return found
