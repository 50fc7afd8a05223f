"""The methods paragraph: what a paper must say of how a map was made, out of the map's own sidecar.

It covers what the consensus asks to be reported of the reconstruction: every algorithm with its parameters, the field
strength and echo times, the voxel size, the direction of B0, the units and the reference region.

References:
  Bilgic et al., Magn. Reson. Med. (2024), doi:10.1002/mrm.30006.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

OPENINGS = {
    "recon": "Samples that k-space lacked were filled by GRAPPA, and coils combined with sensitivities from ESPIRiT",
    "registration": "Orientations were brought to the first by {method}",
    "coils": "Images of single coils were combined once their phase offsets were removed, by MCPC-3D-S",
    "mask": "The mask was found from the magnitude, by the largest piece above a threshold",
    "field": "The total field was fitted to the complex echoes after exact unwrapping",
    "background": "The background field was removed by {method}",
    "residue": "Background that was found in the local field was removed by {method}",
    "inversion": "The local field was inverted by {method}",
    "one step": "The total field was inverted, sources around the mask with it, by {method}",
}


TOLD = (
    ("RepetitionTime", "a repetition time of", " s"),
    ("FlipAngle", "a flip angle of", " degrees"),
    ("PixelBandwidth", "a bandwidth of", " Hz a voxel"),
    ("ImagingFrequency", "a centre frequency of", " MHz"),
    ("ParallelReductionFactorInPlane", "an acceleration of", ""),
)
"""What of a scan is told in numbers: BIDS' name, words, and the unit that BIDS has."""


def methods_paragraph(sidecar: Mapping[str, Any]) -> str:
    """Write the paragraph.

    Args:
      sidecar: as `infer` or `cosmos` writes it beside a map.
    """
    software = sidecar["GeneratedBy"]
    sentences = [
        f"Susceptibility was mapped with {software['Name']} {software['Version']} (jax {software['jax']})",
        _scan(sidecar),
        _orientations(sidecar),
    ]
    # a total field, and no slot that parts it: the inversion did
    one_step = sidecar.get("InputKind", "localfield") != "localfield" and "background" not in sidecar["Stages"]
    for slot, stage in sidecar["Stages"].items():
        named = f"the network {stage['Method']}" if "Weights" in stage else stage["Method"]
        opening = OPENINGS["one step" if one_step and slot == "inversion" else slot]
        only = f", of {', '.join(stage['Orientations'])} only" if "Orientations" in stage else ""
        sentences.append(opening.format(method=named) + only + _parameters(stage) + _references(stage))
    region = {"mean": "the mean over the mask", "none": "no region"}.get(
        sidecar["Reference"], f"the mean over {Path(sidecar['Reference']).name}"
    )
    sentences.append(f"Maps are in ppm, referenced to {region} (offset {sidecar['ReferenceOffset']:.2g} ppm)")
    if "MaskStd" in sidecar:
        sentences.append(f"Over the mask the map is {sidecar['MaskMean']:.2g} ± {sidecar['MaskStd']:.2g} ppm")
    return ". ".join(sentence for sentence in sentences if sentence) + "."


def _scan(sidecar: Mapping[str, Any]) -> str:
    size = " x ".join(f"{d:.3g}" for d in sidecar["VoxelSize"])
    known = [f"voxels of {size} mm"]
    if "Matrix" in sidecar:
        known[0] = f"{' x '.join(map(str, sidecar['Matrix']))} {known[0]}"
    if sidecar["MagneticFieldStrength"]:
        known.append(f"{sidecar['MagneticFieldStrength']:.4g} T")
    if sidecar["EchoTime"]:
        known.append("echo times " + ", ".join(f"{1000 * te:.3g}" for te in sidecar["EchoTime"]) + " ms")
    made = sidecar.get("Acquisition", {})
    known += [f"{word} {made[name]:.4g}{unit}" for name, word, unit in TOLD if isinstance(made.get(name), int | float)]
    known += [
        str(made[name]) for name in ("MRAcquisitionType", "Manufacturer", "ManufacturersModelName") if name in made
    ]
    direction = ", ".join(f"{b:.3f}" for b in sidecar["B0Direction"])
    return f"The scan had {', '.join(known)}, and B0 along ({direction}) in voxel axes"


def _orientations(sidecar: Mapping[str, Any]) -> str:
    every = [np.asarray(each["B0Direction"], np.float64) for each in sidecar.get("Orientations", ())]
    if not every:
        return ""
    unit = np.stack([each / np.linalg.norm(each) for each in every])
    widest = np.degrees(np.arccos(np.clip(unit @ unit.T, -1, 1).min()))
    return f"{len(every)} orientations of the head were combined, up to {widest:.0f} degrees apart"


def _parameters(stage: Mapping[str, Any]) -> str:
    words = [f"{name} {_shown(value)}" for name, value in stage["Parameters"].items() if value is not None]
    if "Weights" in stage:
        words.append(f"weights {stage['Weights']['sha256'][:12]}")
        words += [f"trained on {data}" for data in [stage["Weights"].get("training_data")] if data]
    return f" ({', '.join(words)})" if words else ""


def _references(stage: Mapping[str, Any]) -> str:
    return f" [{'; '.join('doi:' + doi for doi in stage['References'])}]" if stage["References"] else ""


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
