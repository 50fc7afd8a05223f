"""Balls in a ball with a strong source outside, scanned: what the tests of phase, and of its parts, go by."""

import numpy as np

from qsmjax.cli.main import run_command
from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.physics.units import radians_per_ppm

SHAPE = (28, 28, 28)
TE = (0.004, 0.010, 0.018)
B0 = 3.0


def make_head():
    """Balls in a ball, and a strong source outside: chi, mask, local and total field, echoes."""
    points = np.array(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    ball = lambda centre, radius: (
        1 / (1 + np.exp((np.linalg.norm(points - np.reshape(centre, (3, 1, 1, 1)), axis=0) - radius) / 0.5))
    )
    mask = ball((0, 0, 0), 11.5) > 0.5
    chi = (0.12 * ball((2, 1, 0), 2.5) - 0.08 * ball((-4, 3, 2), 2.0)) * mask
    outside = 2.0 * ball((0, 0, -16), 2.5)
    grid = geometry(SHAPE)
    local, total = (np.asarray(forward_field(c, grid, padding=1)) for c in (chi, chi + outside))
    rng = np.random.default_rng(0)
    phase = np.stack([total * float(radians_per_ppm(B0, te)) + 0.3 for te in TE])
    magnitude = np.stack([mask * np.exp(-25 * te) for te in TE])
    noise = 0.004 * (rng.normal(size=phase.shape) + 1j * rng.normal(size=phase.shape))
    signal = magnitude * np.exp(1j * phase) + noise
    return chi, mask, local * mask, total * mask, signal


def infer(*words):
    return run_command("infer", [str(word) for word in words])


def write(path, data):
    save_volume(path, data, new_volume(data, np.eye(4)))
    return path
