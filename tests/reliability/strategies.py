"""Scans that nobody would make, for Hypothesis: any shape, voxel, direction of B0, mask and field."""

import dataclasses

import numpy as np
from hypothesis import strategies as st

from qsmjax.inversion.solution import Solution
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry

MASKS = ("ball", "full", "one voxel", "two parts", "all borders", "a plane", "empty")
FIELDS = ("noise", "zeros", "constant", "tiny", "huge", "spike", "nan outside", "nan inside", "infinity inside")
OURS = (ValueError, FloatingPointError)
"""Errors that say what must hold, what was got and the cure."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A scan, by what was drawn: small enough to be read in a failure."""

    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    b0_dir: tuple[float, float, float]
    mask: str
    field: str
    noise: bool
    magnitude: bool
    seed: int

    def scan(self) -> FieldMap:
        """Make it."""
        rng = np.random.default_rng(self.seed)
        mask = make_mask(self.mask, self.shape, rng)
        field = make_field(self.field, self.shape, mask, rng)
        return field_map(
            field,
            mask,
            geometry(self.shape, self.voxel_size, self.b0_dir),
            noise=0.001 * rng.uniform(0.5, 2, self.shape) if self.noise else None,
            magnitude=rng.uniform(0, 2, self.shape) if self.magnitude else None,
            radians_per_ppm=16.0,
        )


def make_mask(kind: str, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Make a mask of a kind."""
    grid = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) / max(n / 2, 1) for n in shape], indexing="ij")
    mask = np.zeros(shape, bool)
    if kind == "full":
        mask[:] = True
    elif kind == "ball":
        mask = sum(g**2 for g in grid) <= 0.8
    elif kind == "one voxel":
        mask[tuple(int(rng.integers(n)) for n in shape)] = True
    elif kind == "two parts":
        mask[0], mask[-1] = True, True
    elif kind == "all borders":
        mask[:] = True
        mask[tuple(slice(1, -1) for _ in shape)] = False
    elif kind == "a plane":
        mask[:, shape[1] // 2] = True
    return mask


def make_field(kind: str, shape: tuple[int, int, int], mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make a field of a kind [ppm]."""
    field = 0.02 * rng.standard_normal(shape)
    if kind in ("zeros", "constant", "spike"):
        field = np.full(shape, 0.3 if kind == "constant" else 0.0)
    scale = {"tiny": 1e-12, "huge": 1e4}.get(kind, 1.0)
    field = field * scale
    if kind == "spike":
        field[tuple(n // 2 for n in shape)] = 2.0
    if kind == "nan outside":
        field[~mask] = np.nan
    if kind in ("nan inside", "infinity inside") and mask.any():
        field[tuple(np.argwhere(mask)[rng.integers(mask.sum())])] = np.nan if kind == "nan inside" else np.inf
    return field


SAME_BOX = ("two parts", "all borders", "empty")
"""Masks that share their box, so that what is compiled for one serves the others."""


def cases(
    largest: int, shapes: list[tuple[int, int, int]] | None = None, *, compiled_once: bool = False
) -> st.SearchStrategy[Case]:
    """Draw cases.

    Args:
      largest: voxels along an axis.
      shapes: the shapes to draw from; None for any.
      compiled_once: with noise and magnitude, and masks of one box: one program a shape serves all.
    """
    axis = st.integers(1, largest)
    component = st.sampled_from((0.0, 1.0, -1.0, 0.37, -0.81, 1e-3))
    known = st.just(True) if compiled_once else st.booleans()
    return st.builds(
        Case,
        shape=st.tuples(axis, axis, axis) if shapes is None else st.sampled_from(shapes),
        voxel_size=st.tuples(*[st.floats(0.3, 4.0)] * 3),
        b0_dir=st.tuples(component, component, component).filter(any),
        mask=st.sampled_from(SAME_BOX if compiled_once else MASKS),
        field=st.sampled_from(FIELDS),
        noise=known,
        magnitude=known,
        seed=st.integers(0, 99),
    )


def assert_holds(method, case: Case, **options) -> None:
    """Assert that a method gives finite values in the mask on the input's grid, or an error of ours."""
    try:
        made = method(case.scan(), **options)
    except OURS as error:
        line = str(error)
        assert len(line) > 20 and "\n" not in line, line
        return
    volume = made.chi if isinstance(made, Solution) else made.field
    volume, mask = np.asarray(volume), np.asarray(case.scan().mask if isinstance(made, Solution) else made.mask)
    assert volume.shape == case.shape
    assert np.isfinite(volume).all(), f"{(~np.isfinite(volume)).sum()} voxels are not finite"
    assert not volume[~mask].any(), "something lies outside of the mask"
    # the field's own mask was empty, or what is not finite was in it: neither may pass for a map
    assert case.field not in ("nan inside", "infinity inside"), "a field that is not finite passed for one that is"
