"""Where JAX is told to allow double precision, every method still works in single."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.inference.shipped import INVERSIONS
from qsmjax.models.layers import Conv3d, Upsample3d
from qsmjax.phase.echoes import fit_echoes
from qsmjax.phase.offsets import coil_offsets, remove_bipolar
from qsmjax.phase.unwrap import unwrap, unwrap_laplacian
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry
from qsmjax.pipeline import BACKGROUNDS
from qsmjax.recon.espirit import espirit
from qsmjax.recon.grappa import grappa
from qsmjax.recon.sampling import Sampling
from qsmjax.registration.resample import resample
from qsmjax.registration.rigid import register_rigid
from qsmjax.simulate.augment import augment, random_b0_dir
from qsmjax.simulate.coils import multicoil_kspace
from qsmjax.simulate.procedural import random_chi
from qsmjax.training.losses import PAPER_WEIGHTS, weighted_loss

SHAPE = (20, 18, 16)
MASK = np.linalg.norm(np.indices(SHAPE) - np.reshape([9.5, 8.5, 7.5], (3, 1, 1, 1)), axis=0) < 6
NAMES = [*BACKGROUNDS, *(name for name in INVERSIONS if name not in BACKGROUNDS and "qsmnet" not in name)]
"""QSMnets bring a field to their own grid, which can't be traced."""
KEY = partial(jax.random.key, 0)
VOLUME = np.linspace(-3, 3, np.prod(SHAPE)).reshape(SHAPE)
COILS = np.ones((3, *SHAPE), np.complex64)
TE = np.asarray([0.004, 0.009, 0.015, 0.02])
ECHOES = np.exp(1j * TE[:, None, None, None] * 20 * VOLUME)[..., 4:12, 4:12, 4:12]
# traced alone
MADE = {
    "random_chi": lambda: random_chi(KEY(), SHAPE),
    "augment": lambda: augment(KEY(), VOLUME, MASK, max_angle=np.float64(0.3), noise=(0, 1e-3)),
    "random_b0_dir": lambda: random_b0_dir(KEY()),
    "parameters": lambda: [layer(2).init(KEY(), jnp.zeros((1, 4, 4, 4, 1))) for layer in (Conv3d, Upsample3d)],
    "weighted_loss": lambda: weighted_loss(jnp.ones(3, jnp.float32), jnp.ones((), jnp.float32), PAPER_WEIGHTS),
    "unwrap_laplacian": lambda: unwrap_laplacian(VOLUME),
    "grappa": lambda: grappa(COILS, sampling=Sampling((2, 2), (0, 0), ((3, 15), (2, 14))), kernel_size=(3, 2, 2)),
    "espirit": lambda: jax.tree.leaves(espirit(COILS[:, :8, :8, :8], SHAPE, kernel_size=(3, 3, 3))),
}
# with steps on the host
RUN = {
    "unwrap": lambda: unwrap(VOLUME, MASK),
    "fit_echoes": lambda: fit_echoes(ECHOES, TE, 3.0),
    "fit_echoes of as many as it fits": lambda: fit_echoes(ECHOES[:2], TE[:2], 3.0),
    "remove_bipolar": lambda: remove_bipolar(ECHOES, TE),
    "coil_offsets": lambda: coil_offsets(ECHOES[:, None], TE),
    "multicoil_kspace": lambda: multicoil_kspace(KEY(), ECHOES, geometry((8, 8, 8)), sigma=0.1, coils=2, calibration=4),
    "register_rigid": lambda: _register(),
}
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


def _register():
    """Take a step at one level; a crash is what there is to see, as what comes back is on the host."""
    blob = np.exp(-np.sum((np.indices((12, 12, 12)) - 5.5) ** 2, 0) / 9)
    found = register_rigid(blob, blob, np.eye(4), np.eye(4), start=np.eye(4), smoothing=(1.0,), iterations=1)
    assert found.correlation > 0.99
    return np.float32(found.correlation)


@pytest.mark.parametrize("name", [*MADE, *RUN])
def test_what_is_made_of_any_precision_is_single(name):
    made = jax.eval_shape(MADE[name]) if name in MADE else RUN[name]()
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(made)}
    assert kinds <= {"float32", "complex64", "bool"}, kinds


def test_a_volume_resampled_stays_what_it_was():
    assert resample(np.zeros(SHAPE, np.float32), np.eye(4), np.eye(4), SHAPE).dtype == np.float32
