"""What the sidecars beside a scan's files say of it: echo times and field strength."""

from collections.abc import Mapping
from typing import Any, TypeGuard

from qsmjax.cli.errors import UserError
from qsmjax.physics.units import GAMMA

NOMINAL_APART = 0.1
"""Part by which the centre frequency may leave the nominal field strength: scanners sold as 3 T run at 2.89 T."""

ACQUISITION = (
    "Manufacturer",
    "ManufacturersModelName",
    "MRAcquisitionType",
    "RepetitionTime",
    "FlipAngle",
    "PixelBandwidth",
    "ImagingFrequency",
    "ParallelReductionFactorInPlane",
)
"""What the consensus asks to be told of a scan, besides echo times and field strength: Bilgic et al.,
doi:10.1002/mrm.30006."""

STRONGEST = 25.0
"""No magnet around a head is as strong [T]."""


def echo_times(sidecar: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the echo times that a sidecar tells, one or a list; none where they are no positive numbers."""
    value = sidecar.get("EchoTime")
    times = value if isinstance(value, list) else [value]
    good = [float(t) for t in times if _positive(t)]
    return tuple(good) if len(good) == len(times) else ()


def field_strength(sidecar: Mapping[str, Any]) -> tuple[float, str] | None:
    """Return the field strength that a sidecar tells [T], and its key; None where it tells none.

    The centre frequency, which the scanner ran at, stands before the strength that it is sold as.

    Raises:
      UserError: if the two contradict each other.
    """
    nominal, frequency = sidecar.get("MagneticFieldStrength"), sidecar.get("ImagingFrequency")
    if _positive(frequency):
        b0 = float(frequency) * 1e6 / GAMMA
        if _positive(nominal) and abs(b0 / float(nominal) - 1) > NOMINAL_APART:
            raise UserError(
                f"ImagingFrequency must be in MHz and fit MagneticFieldStrength, got {frequency:g} ({b0:.3g} T) and "
                f"{nominal:g} T: mend the sidecar"
            )
        return b0, "ImagingFrequency"
    return (float(nominal), "MagneticFieldStrength") if _positive(nominal) else None


def acquisition(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sidecar tells of how the scan was made and a paper must say, under BIDS' names."""
    return {name: sidecar[name] for name in ACQUISITION if isinstance(sidecar.get(name), str | int | float)}


def check_units(te: tuple[float, ...], b0: float, source: str) -> None:
    """Refuse echo times that are not in seconds, and a field strength that is not in tesla.

    Raises:
      UserError: if one is too large to be.
    """
    if max(te, default=0) > 1:
        raise UserError(f"echo times must be in seconds, got {max(te):g}: divide milliseconds by 1000")
    if b0 > STRONGEST:
        raise UserError(f"field strength must be in tesla, got {b0:.4g} from {source}: a head scanner has 0.05 to 11.7")


def _positive(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
