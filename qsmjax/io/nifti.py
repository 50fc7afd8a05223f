"""NIfTI volumes: array order, affine and header geometry go out as they came in.

Data are float32 after the header's scaling. The header travels with the volume, so that what is saved "like" another
keeps its sform, qform, codes, units and byte order to the last bit.
"""

import dataclasses
import hashlib
import logging
import re
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from qsmjax.io.aside import write_aside

GZIP_LIMIT = 1100
"""The most that deflate can shrink anything (1032:1, and a little): a header that claims more lies about its size."""

# what nibabel mends in a header it also logs; what matters of it is refused here
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

UNREADABLE = (ImageFileError, HeaderDataError, EOFError, OSError, zlib.error, OverflowError, np.linalg.LinAlgError)
"""What nibabel and its decompressors raise on files that are cut short, garbled or not NIfTI."""

SUFFIXES = (".nii", ".nii.gz")


@dataclasses.dataclass(frozen=True)
class NiftiVolume:
    """A volume as it stood in its file.

    Attributes:
      data: float32, at least (x, y, z).
      affine: 4x4, voxel index to world [mm].
      header: nibabel's, unchanged.
      path: where it was read.
      oriented: whether the header said where the volume lies (sform or qform code above zero).
      slope: the header's scale factor, already applied.
      intercept: the header's intercept, already applied.
      stored_as_float: whether the file held floating point.
    """

    data: np.ndarray
    affine: np.ndarray
    header: nib.Nifti1Header
    path: Path
    oriented: bool
    slope: float = 1.0
    intercept: float = 0.0
    stored_as_float: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.data.shape


def is_volume(path: str | Path) -> bool:
    """Say whether a file's name is that of a NIfTI volume, in small letters or capitals."""
    return Path(path).name.lower().endswith(SUFFIXES)


def stem(path: str | Path) -> str:
    """Return a file's name without .nii or .nii.gz."""
    return re.sub(r"(\.nii)?(\.gz)?$", "", Path(path).name, count=1, flags=re.IGNORECASE)


def load_volume(path: str | Path) -> NiftiVolume:
    """Read a NIfTI file whole.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is not NIfTI, is cut short, lies about its size, holds complex or colour voxels, or its
        voxels are in metres or micrometres.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} must exist, got no such file")
    if path.is_dir() or not is_volume(path):
        got = "a folder" if path.is_dir() else "a file of another kind: convert it, for DICOM with dcm2niix"
        raise ValueError(f"{path} must be a NIfTI file (.nii or .nii.gz), got {got}")
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise ValueError(f"{path} must be NIfTI-1 or NIfTI-2, got {type(image).__name__}: convert it")
        _check_layout(path, image)
        _check_voxel_size(path, type(image.header))
        _check_length_unit(path, image.header)
        data = np.asarray(image.dataobj, np.float32)
        affine = np.asarray(image.affine, np.float64)
        if not np.isfinite(affine).all():
            raise ValueError(f"{path} must have a finite affine, got NaN or infinity: mend its header's sform or qform")
    except PermissionError:
        raise
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} must be a whole NIfTI file, got one that cannot be read ({reason[:200]}): copy or convert it again"
        ) from error
    header = image.header
    oriented = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    return NiftiVolume(
        data=data,
        affine=affine,
        header=header,
        path=path,
        oriented=oriented,
        slope=float(getattr(image.dataobj, "slope", 1.0)),
        intercept=float(getattr(image.dataobj, "inter", 0.0)),
        stored_as_float=image.get_data_dtype().kind == "f",
    )


def volume_files(path: str | Path) -> list[Path]:
    """Return the NIfTI files that a path names: a folder's in the order of their names, or the one itself.

    Raises:
      FileNotFoundError: if there are none.
    """
    path = Path(path)
    found = sorted(filter(is_volume, path.iterdir())) if path.is_dir() else [path]
    if not found or not found[0].exists():
        raise FileNotFoundError(f"{path} must be a NIfTI file or a folder of them (.nii, .nii.gz), got none there")
    return found


def stored_shape(path: str | Path) -> tuple[int, ...] | None:
    """Return the axes that a file's header tells, without reading its voxels; None if it tells none."""
    try:
        shape = tuple(int(n) for n in nib.load(path).shape)  # type: ignore[attr-defined]
    except UNREADABLE:
        return None
    return shape if len(shape) >= 3 and min(shape) > 0 else None


def save_volume(path: str | Path, data: np.ndarray, like: NiftiVolume) -> None:
    """Write float32 voxels with the geometry of `like`: affine, codes, units and byte order are its own.

    Raises:
      ValueError: if the first three axes differ from those of `like`, or the name does not end in .nii or .nii.gz.
      OSError: if the folder cannot be written to.
    """
    path = Path(path)
    if not is_volume(path):
        raise ValueError(f"{path} must end in .nii or .nii.gz")
    data = np.asarray(data, np.float32)
    if data.shape[:3] != like.data.shape[:3]:
        raise ValueError(f"data.shape must begin with {like.data.shape[:3]} as in {like.path}, got {data.shape}")
    header = like.header.copy()
    header.set_data_dtype(np.float32)
    header.set_data_shape(data.shape)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    # no affine: the header's own sform and qform go out untouched
    image = kind(data, None, header)
    with write_aside(path) as temporary:
        nib.save(image, temporary)


def new_volume(data: np.ndarray, affine: np.ndarray, path: str | Path = "") -> NiftiVolume:
    """Make a volume that was in no file, in scanner coordinates."""
    header = nib.Nifti1Header()
    header.set_data_shape(np.shape(data))
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1, strip_shears=True)
    header.set_xyzt_units("mm", "sec")
    return NiftiVolume(np.asarray(data, np.float32), np.asarray(affine, np.float64), header, Path(path), True)


def forms_apart(header: nib.Nifti1Header) -> float:
    """Return the angle by which a header's sform and qform differ in the direction of the scanner's axis [degrees]."""
    if int(header["sform_code"]) <= 0 or int(header["qform_code"]) <= 0:
        return 0.0
    # the third row of a rotation: the scanner's z in voxel axes
    rows = [form[2, :3] / np.linalg.norm(form[:3, :3], axis=0) for form in (header.get_sform(), header.get_qform())]
    unit = [row / np.linalg.norm(row) for row in rows]
    return float(np.degrees(np.arccos(np.clip(unit[0] @ unit[1], -1, 1))))


def number_order(path: Path) -> list[tuple[int, int, str]]:
    """Return what sorts files by the numbers in their names: echo 10 comes after echo 9."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_layout(path: Path, image: nib.Nifti1Image) -> None:
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) < 3 or min(shape) < 1:
        raise ValueError(f"{path} must hold a volume of three axes, got shape {tuple(int(n) for n in shape)}")
    if dtype.kind not in "iuf":
        what = "complex voxels: save real and imaginary parts, or magnitude and phase, as files of their own"
        raise ValueError(f"{path} must hold real numbers, got {what if dtype.kind == 'c' else f'{dtype} voxels'}")
    claimed = dtype.itemsize * int(np.prod([int(n) for n in shape], dtype=object))
    size = path.stat().st_size
    if claimed > size * (GZIP_LIMIT if path.suffix.lower() == ".gz" else 1):
        raise ValueError(
            f"{path} must be a whole NIfTI file, got {size} bytes where its header claims {claimed}: copy it again"
        )


def _check_length_unit(path: Path, header: nib.Nifti1Header) -> None:
    # three bits of the code; the rest is of time, and what is neither is as good as unknown
    unit = {1: "metres", 3: "micrometres"}.get(int(header["xyzt_units"]) & 7)
    if unit:
        raise ValueError(f"{path} must have its voxels in mm, got {unit}: scale its affine and set xyzt_units to mm")


def _check_voxel_size(path: Path, kind: type[nib.Nifti1Header]) -> None:
    # as it stands in the file: nibabel mends zero and negative sizes with no more than a log line
    with nib.openers.ImageOpener(str(path)) as file:
        size = kind.from_fileobj(file, check=False)["pixdim"][1:4]
    if not (np.isfinite(size).all() and size.min() > 0):
        raise ValueError(f"{path} must have positive voxel sizes, got {size.tolist()} mm: mend pixdim in its header")
