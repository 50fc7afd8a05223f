"""Volumes small enough to stand in a page: gzipped NIfTI of whole numbers, cut to a box."""

import gzip
from collections.abc import Sequence

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike

STEPS = 1000
"""Steps between zero and the largest value: finer than any window shows, and half of what noise would cost to keep."""


def embedded_volume(volume: ArrayLike, affine: ArrayLike, box: Sequence[slice] = (slice(None),) * 3) -> bytes:
    """Return a volume as the bytes of a .nii.gz file.

    Whole numbers are kept as they are, from 0 to 255 in one byte and up to ±32767 in two; all else is rounded to a
    thousandth of its largest size, in two. What is not finite becomes zero.

    Args:
      volume: (x, y, z).
      affine: 4x4, voxel index to world [mm].
      box: the part to keep; the affine moves along, so that it stays where it was.
    """
    kept = np.nan_to_num(np.asarray(volume, np.float32)[tuple(box)], posinf=0, neginf=0)
    shifted = np.array(affine, np.float64)
    shifted[:3, 3] += shifted[:3, :3] @ [s.start or 0 for s in box]
    largest = float(np.abs(kept).max()) if kept.size else 0.0
    whole = np.array_equal(kept, np.rint(kept)) and largest <= np.iinfo(np.int16).max
    step = 1.0 if whole else largest / STEPS
    byte = whole and kept.min(initial=0) >= 0 and largest <= np.iinfo(np.uint8).max
    values = np.rint(kept / (step or 1)).astype(np.uint8 if byte else np.int16)
    # written by hand: nibabel would choose a step of its own
    header = nib.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_sform(shifted, code=1)
    header.set_xyzt_units("mm")
    header["pixdim"][1:4] = np.linalg.norm(shifted[:3, :3], axis=0)
    header["magic"], header["vox_offset"], header["scl_slope"], header["scl_inter"] = b"n+1", 352, step, 0
    # the same volume gives the same bytes: no time in the gzip header
    return gzip.compress(header.binaryblock + bytes(4) + values.tobytes(order="F"), mtime=0)
