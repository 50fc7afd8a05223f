"""Validation on whole volumes that training never saw, beside TKD on the same noisy field.

Drawn heads come from a stream of their own, the same for every seed, so that runs can be compared.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from numpy.typing import NDArray

from qsmjax.evaluation import metrics
from qsmjax.inversion.direct import tkd
from qsmjax.models.scaling import Scaling, predict
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import Geometry, geometry
from qsmjax.simulate.procedural import random_chi
from qsmjax.training.config import TrainConfig
from qsmjax.training.data import Maps
from qsmjax.training.devices import compiled
from qsmjax.training.samples import B0_DIR
from qsmjax.training.state import TrainState

STREAM = 20_180_601
"""Seed of the heads that training never draws."""
Predict = Callable[[Any, Scaling, NDArray, NDArray], jax.Array]
NAMES = ("psnr", "nrmse", "hfen", "ssim")


@dataclasses.dataclass(frozen=True)
class Case:
    """A volume to validate on: its noisy field, its truth, and what TKD makes of it [ppm]."""

    name: str
    field: NDArray
    chi: NDArray
    mask: NDArray
    tkd: NDArray


def make_cases(config: TrainConfig, maps: Sequence[Maps] = ()) -> list[Case]:
    """Make the cases: from maps where there are any, else from drawn heads."""
    if not maps:
        draw = compiled(lambda key: random_chi(key, config.validation_shape, config.voxel_size, lesions=config.lesions))
        drawn = [draw(jax.random.key(STREAM + i)) for i in range(config.validation_heads)]
        maps = [Maps(f"head {i}", np.asarray(chi), np.asarray(mask)) for i, (chi, mask) in enumerate(drawn)]
    return [_case(config, i, m) for i, m in enumerate(maps)]


def _case(config: TrainConfig, number: int, maps: Maps) -> Case:
    grid = geometry(maps.chi.shape, config.voxel_size, B0_DIR)
    chi = np.where(maps.mask, maps.chi, 0)
    field = maps.field
    if field is None:
        rng = np.random.default_rng(STREAM + number)
        noise = config.validation_noise * rng.standard_normal(chi.shape, np.float32)
        field = np.asarray(compiled(forward_field)(chi, grid)) + noise
    field = np.where(maps.mask, field, 0)
    return Case(maps.name, field, chi, maps.mask, np.asarray(invert_tkd(field, maps.mask, grid)))


def invert_tkd(field: NDArray, mask: NDArray, grid: Geometry) -> NDArray:
    """Invert a field by TKD at its usual threshold, 0.15."""
    return np.asarray(tkd(field_map(field, mask, grid), threshold=0.15).chi)


def make_predict(network: nn.Module) -> Predict:
    """Compile (variables, scaling, field, mask) -> chi."""
    return compiled(lambda variables, scaling, field, mask: predict(network, variables, scaling, field, mask))


def validate(predict_chi: Predict, state: TrainState, cases: Sequence[Case]) -> tuple[dict[str, float], NDArray]:
    """Score a network.

    Returns:
      The mean of each metric over the cases, under "val_" and its name; and the first case's map.
    """
    made = [np.asarray(predict_chi(state.variables(), state.scaling, case.field, case.mask)) for case in cases]
    return mean_scores(made, cases), made[0]


def mean_scores(made: Sequence[NDArray], cases: Sequence[Case]) -> dict[str, float]:
    """Return the mean of each metric over the cases, under "val_" and its name."""
    each = [_score(chi, case.chi, case.mask) for chi, case in zip(made, cases)]
    return {f"val_{name}": float(np.mean([s[name] for s in each])) for name in NAMES}


@compiled
def _score(chi, truth, mask):
    return {name: getattr(metrics, name)(chi, truth, mask) for name in NAMES}
