"""Where JAX is told to allow double precision, every method still works in single."""

import jax
import numpy as np
import pytest

from qsmjax.inference.shipped import INVERSIONS
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry
from qsmjax.pipeline import BACKGROUNDS
from qsmjax.registration.resample import resample

SHAPE = (20, 18, 16)
MASK = np.linalg.norm(np.indices(SHAPE) - np.reshape([9.5, 8.5, 7.5], (3, 1, 1, 1)), axis=0) < 6
NAMES = [*BACKGROUNDS, *(name for name in INVERSIONS if name not in BACKGROUNDS and "qsmnet" not in name)]
"""QSMnets bring a field to their own grid, which can't be traced."""
OPTIONS = {"vsharp": {"radii": (3.0, 2.0)}, "sharp": {"radius": 3.0}, "resharp": {"radius": 3.0}}


@pytest.fixture(autouse=True)
def double():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize("name", NAMES)
def test_a_field_in_single_precision_gives_one_back(name):
    grid = geometry(SHAPE, (1.0, 1.0, 1.2), (0.1, 0.2, 0.97))
    method = BACKGROUNDS.get(name) or INVERSIONS[name]

    def made(field):
        given = field_map(field, MASK, grid, noise=1e-3, magnitude=np.ones(SHAPE), radians_per_ppm=8.0)
        result = method(given, **OPTIONS.get(name, {}))
        return result.chi if hasattr(result, "chi") else result.field

    # only traced: where double meets single in a loop, that stops already
    assert jax.eval_shape(made, jax.ShapeDtypeStruct(SHAPE, np.float32)).dtype == np.float32


def test_a_volume_resampled_stays_what_it_was():
    assert resample(np.zeros(SHAPE, np.float32), np.eye(4), np.eye(4), SHAPE).dtype == np.float32
