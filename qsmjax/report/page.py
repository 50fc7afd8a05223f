"""The page of one map: a file that holds its figures, its volumes with a viewer, its checks and every parameter."""

import dataclasses
import html
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qsmjax.evaluation.plausibility import Residual, field_residual
from qsmjax.physics.field_map import FieldMap, spans_head
from qsmjax.report import document, expected, viewer
from qsmjax.report.checks import map_warnings
from qsmjax.report.document import numbers, pairs, picture, points, section
from qsmjax.report.figures import CHI_WINDOW, round_up, three_plane
from qsmjax.report.histogram import histogram
from qsmjax.report.viewer import Layer

DPI = 110
"""Of the figures: one fits the page's width."""


@dataclasses.dataclass(frozen=True)
class MapFacts:
    """All that a page shows of a map.

    Attributes:
      local: the field that was inverted: a total one, where `one_step`.
      chi: the map [ppm], referenced.
      inverted: the map as the inversion gave it [ppm], before the reference was subtracted.
      affine: 4x4, voxel index to world [mm].
      sidecar: as it lies beside the map, with its warnings and methods paragraph.
      std: standard deviation of chi [ppm], where the method gave one.
      total: the total field [ppm] with its mask, where the background was removed.
      labels: a segmentation in FreeSurfer's numbers, on the same grid.
      one_step: the map was made of the total field itself, and what it leaves of that is the background.
    """

    local: FieldMap
    chi: ArrayLike
    inverted: ArrayLike
    affine: ArrayLike
    sidecar: Mapping[str, Any]
    std: ArrayLike | None = None
    total: FieldMap | None = None
    labels: ArrayLike | None = None
    one_step: bool = False

    @property
    def given(self) -> str:
        """Return what the field that was inverted is called."""
        return "total field" if self.one_step else "local field"

    @property
    def left(self) -> str:
        """Return what the rest is called that the map does not make."""
        return "background and noise" if self.one_step else "field that the map leaves"


def map_page(path: str | os.PathLike, facts: MapFacts, *, title: str) -> list[str]:
    """Write the page of a map; it appears whole or not at all, and needs no other file and no network.

    Args:
      path: where to write.
      facts: what to show.
      title: of the page, as plain text.

    Returns:
      What is unusual, a line each, as the page says it: the sidecar's warnings, or what `map_warnings` finds where that
      has none to tell.
    """
    residual = field_residual(facts.local, facts.inverted)
    unusual = facts.sidecar.get("Warnings")
    if unusual is None:
        unusual = map_warnings(
            facts.local, facts.inverted, total=facts.total, labels=facts.labels, one_step=facts.one_step
        )
    layers = _layers(facts, residual)
    mask = np.asarray(facts.local.mask)
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            _verdict(unusual, whole=spans_head(facts.local)),
            section("Look around", viewer.viewer(layers, facts.affine, _box(mask))),
            section("Three planes", *_figures(facts, layers, Path(folder))),
            section("Is it as expected?", *_expectations(facts)),
            section("What the map leaves of the field", pairs(_fit(residual))),
            section("Histogram", _histogram(facts, Path(folder))),
            section("Methods", f"<p>{html.escape(facts.sidecar.get('MethodsParagraph', ''))}</p>"),
            section("Every parameter", pairs({k: v for k, v in facts.sidecar.items() if k != "MethodsParagraph"})),
        ]
        document.document(path, title, parts, style=viewer.STYLE)
    return list(unusual)


def _verdict(unusual: Sequence[str], *, whole: bool) -> str:
    if unusual:
        return f'<div class="warnings"><p><b>Look at this first</b></p>{points(unusual)}</div>'
    checks = "mask at the border, fit to the field, convergence"
    heads = "units, sign, left background, high-pass filter"
    told = f"({checks}, {heads})" if whole else f"({checks}); the mask is too small to judge {heads}"
    return f'<div class="fine"><p>Nothing unusual was found {told}.</p></div>'


def _layers(facts: MapFacts, residual: Residual) -> list[Layer]:
    mask = np.asarray(facts.local.mask)
    fitting = lambda volume, percent=99: round_up(float(np.percentile(np.abs(np.asarray(volume)[mask]), percent)))
    field, rest = fitting(facts.local.field), fitting(residual.volume)
    layers = [Layer("susceptibility", facts.chi, CHI_WINDOW)]
    if facts.std is not None:
        layers.append(Layer("uncertainty (standard deviation)", facts.std, (0, fitting(facts.std)), colours="viridis"))
    layers.append(Layer(facts.given, facts.local.field, (-field, field)))
    if facts.total is not None:
        limit = fitting(facts.total.field)
        layers.append(Layer("total field", facts.total.field, (-limit, limit)))
    layers.append(Layer(facts.left, residual.volume, (-rest, rest)))
    if facts.local.noise is not None:
        noise = fitting(facts.local.noise)
        layers.append(Layer("noise of the field", np.where(mask, facts.local.noise, 0), (0, noise), colours="viridis"))
    if facts.local.magnitude is not None:
        image = np.asarray(facts.local.magnitude)
        layers.append(Layer("magnitude", image, (0, fitting(image)), units=""))
    if facts.labels is not None:
        layers.append(Layer("segmentation", facts.labels, (0, 60), units="", colours="random"))
    layers.append(Layer("mask", mask, (0, 1), units=""))
    return layers


def _figures(facts: MapFacts, layers: Sequence[Layer], folder: Path) -> list[str]:
    mask, parts = np.asarray(facts.local.mask), []
    for number, layer in enumerate(each for each in layers if each.title != "segmentation"):
        # an image with what lies around the head shows whether the mask is the head's
        around = np.ones_like(mask) if layer.title in ("magnitude", "mask") else mask
        file = folder / f"{number}.png"
        three_plane(
            {layer.title: layer.volume},
            file,
            affine=facts.affine,
            mask=around,
            window=layer.window,
            units=layer.units,
            dpi=DPI,
        )
        parts.append(picture(layer.title, file))
    return parts


def _expectations(facts: MapFacts) -> list[str]:
    rows = [] if facts.labels is None else expected.region_rows(facts.chi, facts.labels, facts.local.mask)
    parts = []
    if rows:
        parts += [
            "<p>Regions [ppm]; expected: healthy adults, wide ranges of the difference to white matter.</p>",
            numbers(rows),
        ]
    elif facts.labels is not None:
        parts.append("<p>The segmentation has none of FreeSurfer's numbers within the mask.</p>")
    parts += [
        "<p>Percentiles over the mask [ppm]; expected: wide ranges from simulated healthy heads.</p>",
        numbers(expected.percentile_rows(facts.chi, facts.local.mask)),
        '<p class="faint">These ranges tell mistakes of sign, unit and scale; they are no norm.</p>',
    ]
    return parts


def _fit(residual: Residual) -> dict[str, str]:
    told = {
        "Root mean square": f"{residual.rms:.3g} ppm of the field's {residual.field_rms:.3g} ppm",
        "Variance explained": f"{residual.explained:.1%}",
        "Beyond five robust standard deviations": f"{residual.outliers:.2%} of the mask",
    }
    if residual.over_noise is not None:
        told["Over the noise map"] = f"{residual.over_noise:.2f} times"
    return told


def _histogram(facts: MapFacts, folder: Path) -> str:
    values = np.asarray(facts.chi)[np.asarray(facts.local.mask)]
    histogram(values, folder / "histogram.png")
    told = f"mean {values.mean():.4f}, standard deviation {values.std():.4f} ppm over {values.size} voxels"
    return f"<p>Over the whole mask: {told}.</p>" + picture("histogram", folder / "histogram.png")


def _box(mask: np.ndarray, margin: int = 4) -> list[slice]:
    """Return the mask's box with a margin: what lies beyond is not worth its bytes."""
    if not mask.any():
        return [slice(0, n) for n in mask.shape]
    return [slice(max(i.min() - margin, 0), int(i.max()) + 1 + margin) for i in np.nonzero(mask)]
