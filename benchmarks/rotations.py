"""One object scanned in many poses: how far apart are the maps, once they are turned back?

    python benchmarks/rotations.py

Prints, for TKD, TV and the learned inversion, the NRMSE between the map of a turned scan, turned back, and the map of
the upright one:
- over the 48 permutations and flips of one grid (bars: TKD 1e-4, TV 1 %; the network is reported), and over the same
  with an affine, by which the command line turns the volumes first (bar for the network too: 1e-4);
- over oblique poses of an analytic object (Gaussian balls, whose field is known in closed form), unmasked, in a field
  of view of more than four radii (bar: TKD 1 %; the others are reported).
"""

import itertools

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.special import erf

from qsmjax.inference.shipped import INVERSIONS
from qsmjax.inversion import tkd, tv
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry
from qsmjax.pipeline import in_world_axes

SIZE = 64
BALLS = (((0, 0, 0), 3.0, 0.1), ((5, -3, 2), 2.0, -0.08), ((-4, 4, -5), 2.5, 0.06))
"""Centre [mm], standard deviation [mm], susceptibility at the centre [ppm]."""
NOISE = 2e-4


def main() -> None:
    """Print both tables."""
    print("48 permutations and flips, 0.9x1.1x1.4 mm, B0 20 degrees oblique: largest NRMSE")
    for name, invert in methods().items():
        print(f"  {name:8}  {max(grid_symmetries(invert)):.2e}")
    found = max(grid_symmetries(INVERSIONS["learned"], by_affine=True))
    print(f"  learned, by its affine  {found:.2e}")
    print("oblique poses of an analytic object, unmasked: NRMSE")
    for name, invert in methods().items():
        found = oblique_poses(invert)
        print(f"  {name:8}  " + "  ".join(f"{degrees:2d} deg {error:.2%}" for degrees, error in found.items()))


def methods():
    """Return the inversions compared; a fixed count makes TV's stopping the same for all poses."""
    least = lambda scan: tv(scan, weight=2e-5, tolerance=None, max_iterations=100)
    return {"tkd": tkd, "tv": least, "learned": INVERSIONS["learned"]}


def grid_symmetries(invert, *, by_affine: bool = False) -> list[float]:
    """Return the NRMSE of every permutation and flip of a masked, noisy scan against the upright one."""
    shape, size, b0 = (40, 36, 30), np.array([0.9, 1.1, 1.4]), np.array([0.0, 0.342, 0.940])
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, b0[2], -b0[1]], [0, b0[1], b0[2]]]) * size
    points = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * d for n, d in zip(shape, size)], indexing="ij")
    mask = sum((p / (0.46 * n * d)) ** 2 for p, n, d in zip(points, shape, size)) < 1
    chi = np.where(mask, balls_chi(points), 0)
    noise = np.random.default_rng(0).normal(scale=NOISE, size=shape)
    field = np.asarray(forward_field(chi, geometry(shape, size, b0))) + noise
    upright = np.asarray(invert(field_map(field, mask, geometry(shape, size, b0))).chi)
    errors = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            turn = lambda volume: volume.transpose(order)[tuple(slice(None, None, s) for s in signs)]  # noqa: B023
            turned = field_map(
                turn(field), turn(mask), geometry(turn(field).shape, size[list(order)], b0[list(order)] * signs)
            )
            matrix = affine[:, [*order, 3]] * [*signs, 1]
            solution = in_world_axes(invert, turned, matrix) if by_affine else invert(turned)
            chi_turned = np.asarray(solution.chi)
            errors.append(np.linalg.norm(chi_turned - turn(upright)) / np.linalg.norm(upright))
    return errors


def oblique_poses(invert) -> dict[int, float]:
    """Return the NRMSE of tilted scans of the analytic object, their maps brought back to the upright grid."""
    index = (np.arange(SIZE) - SIZE / 2) * 1.0
    points = np.array(np.meshgrid(index, index, index, indexing="ij"))
    on = lambda turn: geometry((SIZE,) * 3, (1, 1, 1), turn.T @ (0, 0, 1))
    upright = np.asarray(invert(field_map(balls_field(points), None, on(np.eye(3)))).chi)
    inside = np.linalg.norm(points, axis=0) < 14
    errors = {}
    for degrees in (10, 20, 30, 45):
        turn = rotation(degrees)
        world = np.einsum("ij,jxyz->ixyz", turn, points)
        chi = np.asarray(invert(field_map(balls_field(world), None, on(turn))).chi)
        # where each upright voxel lies on the tilted grid
        back = np.einsum("ji,jxyz->ixyz", turn, points) + SIZE / 2
        returned = map_coordinates(chi, back, order=5, mode="nearest")
        errors[degrees] = float(np.linalg.norm((returned - upright)[inside]) / np.linalg.norm(upright[inside]))
    return errors


def balls_chi(points) -> np.ndarray:
    """Return the susceptibility of the balls at points in mm."""
    return sum(
        height * np.exp(-sum((p - c) ** 2 for p, c in zip(points, centre)) / (2 * width**2))
        for centre, width, height in BALLS
    )


def balls_field(points) -> np.ndarray:
    """Return the field of the balls, B0 along z: the dipole of the moment within r, and the Lorentz-corrected inside.

    field(r) = (m(r) / r³ - chi(r) / 3) (3 cos² θ - 1) ... with m(r) = ∫₀ʳ chi s² ds
    """
    total = np.zeros(points[0].shape)
    for centre, width, height in BALLS:
        x, y, z = (p - c for p, c in zip(points, centre))
        r = np.sqrt(x**2 + y**2 + z**2) + 1e-9
        profile = height * np.exp(-(r**2) / (2 * width**2))
        moment = height * width**3 * (np.sqrt(np.pi / 2) * erf(r / (np.sqrt(2) * width))) - width**2 * r * profile
        # below a tenth of the width the difference is lost to rounding, and is of the order of r²
        shape = np.where(r > 0.1 * width, moment / r**3 - profile / 3, height * r**2 / (15 * width**2))
        total += shape * (3 * (z / r) ** 2 - 1)
    return total


def rotation(degrees: float) -> np.ndarray:
    """Turn about an axis that is none of the grid's."""
    axis = np.array([1.0, 0.5, 0.2]) / np.linalg.norm([1.0, 0.5, 0.2])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


if __name__ == "__main__":
    main()
