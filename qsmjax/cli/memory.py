"""How much memory a scan will take, told from its files' headers before anything is read."""

from qsmjax.io.bids import Run
from qsmjax.io.nifti import stored_shape

BASE = 700e6
"""Libraries, and what they compile [bytes]."""
A_VOXEL = 300.0
"""For each voxel, of the stages after the fit [bytes]."""
AN_ECHO = 50.0
"""For each voxel of each echo: parts as stored, scaled and complex, unwrapping, the fit [bytes]."""


def memory_of(run: Run) -> int:
    """Estimate the memory that a scan takes at its peak [bytes].

        BASE + voxels · (A_VOXEL + echoes · AN_ECHO)

    benchmarks/cohort_memory.py measures 15 to 40 % less, from 64³ to 112³ voxels and one to six echoes by the default
    methods.

    Args:
      run: whose headers are looked at; one that can't be read costs no more than to find that out.
    """
    files = run.parts.get("phase") or run.parts.get("real") or ()
    shapes = [shape for shape in map(stored_shape, files) if shape]
    if not shapes:
        return int(BASE)
    x, y, z, *rest = shapes[0]
    echoes = len(files) if len(files) > 1 or not rest else rest[0]
    return int(BASE + x * y * z * (A_VOXEL + echoes * AN_ECHO))
