"""Files of echoes as a scanner stores them, phase and magnitude or real and imaginary parts, to complex echoes."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Complex

from qsmjax.cli.errors import UserError
from qsmjax.cli.scan import as_magnitude, on_grid, read_mask, single_volume, without_nan
from qsmjax.io.nifti import NiftiVolume, load_volume
from qsmjax.phase.echoes import echoes_from_phase
from qsmjax.phase.mask import magnitude_mask
from qsmjax.phase.scaling import complex_from_parts, phase_to_radians


class Stored(NamedTuple):
    """What files of echoes hold.

    Attributes:
      first: the first file of phase, or of real parts, whose geometry the output takes.
      values: phase as the header scales it, or both parts as complex numbers; echo x y z.
      magnitude: echo x y z; None where there is none.
    """

    first: NiftiVolume
    values: np.ndarray
    magnitude: np.ndarray | None


def read_stored(main: Sequence[Path], imaginary: Sequence[Path] = (), magnitudes: Sequence[Path] = ()) -> Stored:
    """Load phase, or real parts with the imaginary ones, and magnitudes: a file an echo, or one file of all.

    Args:
      main: files of phase, or of real parts.
      imaginary: files of imaginary parts, which tell the magnitude too; none with phase.
      magnitudes: files; may be none.

    Raises:
      UserError: if they do not lie on one grid, differ in number, or phase has several scale factors.
      ValueError: from the reader, alike.
    """
    first, values = _stack(main, "real part" if imaginary else "phase")
    if imaginary:
        values = values + 1j * _like(values, first, imaginary, "imaginary part")
        return Stored(first, values, as_magnitude(np.abs(values)))
    magnitude = as_magnitude(_like(values, first, magnitudes, "magnitude")) if magnitudes else None
    return Stored(first, values, magnitude)


def head_of(stored: Stored, mask: str | Path | None, how: str) -> tuple[np.ndarray, list[str]]:
    """Return where the head is, by a file or else the magnitude, and notes.

    Args:
      stored: echoes.
      mask: a file; None to find the head.
      how: in which way a user gives a mask, in words.

    Raises:
      UserError: if there is neither, or the file does not fit.
    """
    if mask is not None:
        return read_mask(load_volume(mask), stored.first)
    if stored.magnitude is None:
        raise UserError(f"a mask must be given {how} where there is no magnitude to find the head from, got neither")
    note = f"mask found from the magnitude: it holds all that gives signal; give a brain mask {how}"
    return np.asarray(magnitude_mask(stored.magnitude)), [note]


def complex_echoes(
    stored: Stored, mask: np.ndarray, args: argparse.Namespace, manufacturer: str | None
) -> tuple[Complex[Array, "echo x y z"], np.ndarray, list[str]]:
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
    values, mask, notes = without_nan(stored.values, mask, named, to_mask=args.nan_to_mask)
    if parts:
        signal = complex_from_parts(values.real, values.imag, manufacturer=manufacturer)
        return signal, mask, [*notes, "echoes from real and imaginary parts"]
    scaled = phase_to_radians(
        values,
        units=args.phase_units,
        scl_slope=stored.first.slope,
        scl_inter=stored.first.intercept,
        stored_as_float=stored.first.stored_as_float,
        manufacturer=manufacturer,
    )
    return echoes_from_phase(scaled.phase, stored.magnitude), mask, [*notes, f"phase scaled as {scaled.rule}"]


def _stack(paths: Sequence[Path], name: str) -> tuple[NiftiVolume, np.ndarray]:
    """Stack one file an echo, or one file with the echoes on its fourth axis, to (echo, x, y, z)."""
    first, *rest = (load_volume(path) for path in paths)
    if not rest and sum(n != 1 for n in first.shape[3:]) < 2:
        return first, np.moveaxis(first.data.reshape(*first.shape[:3], -1), -1, 0)
    if name == "phase" and any(v.slope != first.slope or v.intercept != first.intercept for v in rest):
        raise UserError("the phase files must share one scale factor, got several: convert them together")
    return first, np.stack([single_volume(first), *(on_grid(v, first, name) for v in rest)])


def _like(values: np.ndarray, first: NiftiVolume, paths: Sequence[Path], name: str) -> np.ndarray:
    """Stack files that must be as many echoes, on the grid of others."""
    other, found = _stack(paths, name)
    if found.shape != values.shape:
        raise UserError(
            f"{name} must have the {len(values)} echoes of {values.shape[1:]} that {first.path} has, got "
            f"{len(found)} of {found.shape[1:]} in {other.path}: give files of the same echoes"
        )
    # the others were held against their first
    on_grid(dataclasses.replace(other, data=found[0]), first, name)
    return found
