"""Gradient-echo scans in a BIDS dataset: which files belong together, and what their sidecars say.

    sub-01/[ses-a/]anat/sub-01_[ses-a_][acq-x_][echo-1_][part-phase_]MEGRE.nii[.gz]

A run is all files that differ in nothing but echo and part. Its suffix is MEGRE, T2starw, or the older GRE; its parts
are magnitude and phase, or real and imaginary; echoes stand in a file each, or along the fourth axis of one. A file
without a part is the magnitude of one whose part is told. Nothing is searched deeper than the standard says, so that no
loop of links is ever followed.

References:
  Gorgolewski et al., Sci. Data 3:160044 (2016), doi:10.1038/sdata.2016.44.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qsmjax.io.nifti import SUFFIXES
from qsmjax.io.sidecar import load_json

GRADIENT_ECHO = ("MEGRE", "GRE", "T2starw")
"""Suffixes of scans that a map can be made of, the better told first."""
FOLDERS = ("anat", "swi")
LABEL = re.compile(r"[0-9A-Za-z+]+")
PARTS = ("mag", "phase", "real", "imag")


class Name(NamedTuple):
    """A file's name taken apart: entities in their order, and suffix."""

    entities: dict[str, str]
    suffix: str


@dataclasses.dataclass(frozen=True)
class Run:
    """The files of one scan.

    Attributes:
      entities: all but echo and part, "sub" first.
      suffix: of the files.
      folder: from the dataset's root to the files' folder.
      parts: part ("mag", "phase", "real", "imag") -> files, by echo.
      problem: why no map can be made of it, where none can.
    """

    entities: Mapping[str, str]
    suffix: str
    folder: Path
    parts: Mapping[str, tuple[Path, ...]]
    problem: str | None = None

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return "_".join(f"{key}-{value}" for key, value in self.entities.items())

    @property
    def anat(self) -> Path:
        """Where its derivatives stand, from their root."""
        return self.folder.parent / "anat"

    @property
    def magnitude_alone(self) -> bool:
        """Whether it never was a scan for a map."""
        return set(self.parts) <= {"mag"}

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files."""
        return tuple(path for part in PARTS for path in self.parts.get(part, ()))


def check_label(what: str, text: str, prefix: str) -> str:
    """Return a label as a user gave it, without its prefix.

    Raises:
      ValueError: if it is no BIDS label: what else it holds could lead out of the folder.
    """
    label = text.removeprefix(f"{prefix}-")
    if not LABEL.fullmatch(label):
        raise ValueError(f"{what} must be letters and digits, got {text[:80]!r}: as in {prefix}-01 or 01")
    return label


def parse_name(name: str) -> Name | None:
    """Take a file's name apart, or return None if BIDS has no such names."""
    *pairs, suffix = name.split(".")[0].split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        key, dash, value = pair.partition("-")
        if not (dash and key.isalnum() and LABEL.fullmatch(value)) or key in entities:
            return None
        entities[key] = value
    return Name(entities, suffix) if suffix.isalnum() else None


def find_runs(root: str | Path, subjects: Iterable[str] = (), sessions: Iterable[str] = ()) -> list[Run]:
    """Find the gradient-echo scans of a dataset, by name.

    Args:
      root: the dataset.
      subjects: labels without "sub-"; none for all.
      sessions: labels without "ses-"; none for all.

    Raises:
      ValueError: if it is no folder of subjects, a named one is not there, or no subject has a named session.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} must be a BIDS dataset, got no folder of that name")
    present = {path.name.removeprefix("sub-"): path for path in sorted(root.glob("sub-*")) if _is_folder(path, root)}
    present = {label: path for label, path in present.items() if LABEL.fullmatch(label)}
    if not present:
        raise ValueError(f"{root} must hold folders sub-*, got none: is it a BIDS dataset?")
    wanted = list(dict.fromkeys(subjects)) or list(present)
    missing = [label for label in wanted if label not in present]
    if missing:
        raise ValueError(f"sub-{missing[0]} must be a folder of {root}, got none that can be read")
    sessions = list(dict.fromkeys(sessions))
    for label in sessions:
        # of any subject: those that are wanted need not have come to every session
        if not any(_is_folder(path / f"ses-{label}", root) for path in present.values()):
            raise ValueError(f"ses-{label} must be a folder of a subject in {root}, got none that can be read")
    runs = []
    for label in wanted:
        places = [present[label], *(path for path in sorted(present[label].glob("ses-*")) if _is_folder(path, root))]
        if sessions:
            places = [path for path in places if path.name.removeprefix("ses-") in sessions]
        for place in places:
            runs += _one_a_name(
                run for name in FOLDERS if _is_folder(place / name, root) for run in _runs_of(place / name, root)
            )
    return runs


def sidecar_of(root: str | Path, path: Path) -> dict[str, Any]:
    """Read what the JSON files say of an image, those nearer to it over those above (the inheritance principle).

    One applies to an image if it stands in its folder or above, has its suffix, and no entity that the image has not.

    Raises:
      ValueError: if one that applies is no JSON object.
    """
    root, name = Path(root), parse_name(path.name)
    told: dict[str, Any] = {}
    if name is None:
        return told
    inside = path.relative_to(root).parts[:-1]
    for depth in range(len(inside) + 1):
        folder = root.joinpath(*inside[:depth])
        found = [(parse_name(file.name), file) for file in sorted(folder.glob(f"*{name.suffix}.json"))]
        applying = [
            (len(other.entities), file)
            for other, file in found
            if other and other.suffix == name.suffix and other.entities.items() <= name.entities.items()
        ]
        for _, file in sorted(applying):
            told |= load_json(file)
    return told


def find_beside(folders: Sequence[str | Path], run: Run, suffix: str) -> Path | None:
    """Find a derivative (a mask, a segmentation) of a run: the first folder that has one, there the closest in name.

    Its entities must be the run's, but for desc, label, seg, atlas, space ("orig" alone) and res; among several that
    with most of the run's entities is taken. A mask is the brain's: one that is labelled as another's is none, and one
    that says that it is goes before those that say nothing.

    Args:
      folders: roots of derivative datasets.
      run: whose.
      suffix: "mask", "dseg" and so on.
    """
    free = {"desc", "label", "seg", "atlas", "res", "space"}
    for folder in folders:
        best: list[tuple[bool, int, str, Path]] = []
        for path in sorted((Path(folder) / run.anat).glob(f"sub-{run.entities['sub']}_*{suffix}.nii*")):
            name = parse_name(path.name)
            if name is None or name.suffix != suffix or not path.name.endswith(SUFFIXES):
                continue
            if suffix == "mask" and name.entities.get("label", "brain") != "brain":
                continue
            brain = suffix == "mask" and "brain" in (name.entities.get("desc"), name.entities.get("label"))
            own = {key: value for key, value in name.entities.items() if key not in free}
            if own.items() <= run.entities.items() and name.entities.get("space", "orig") == "orig":
                best.append((brain, len(own), path.name, path))
        if best:
            return max(best)[-1]
    return None


def _is_folder(path: Path, root: Path) -> bool:
    """Tell whether a path is a folder that does not lead back above itself."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        # links in a circle
        return False
    return real.is_dir() and not root.resolve().is_relative_to(real)


def _runs_of(folder: Path, root: Path) -> list[Run]:
    groups: dict[tuple, dict[str, list[tuple[int, Path]]]] = {}
    inside = dict(part.split("-", 1) for part in folder.relative_to(root).parts[:-1])
    for path in sorted(folder.iterdir()):
        name = parse_name(path.name) if path.name.endswith(SUFFIXES) else None
        if name is None or name.suffix not in GRADIENT_ECHO:
            continue
        if {key: name.entities.get(key) for key in ("sub", "ses") if key in inside or key in name.entities} != inside:
            continue
        key = (*((k, v) for k, v in name.entities.items() if k not in ("echo", "part")),)
        parts = groups.setdefault((key, name.suffix), {})
        echo = name.entities.get("echo", "0")
        parts.setdefault(name.entities.get("part", "mag"), []).append((int(echo) if echo.isdigit() else 0, path))
    runs = []
    # where two suffixes share the entities, the better told comes first
    for (key, suffix), parts in sorted(groups.items(), key=lambda item: GRADIENT_ECHO.index(item[0][1])):
        files = {part: tuple(path for _, path in sorted(found)) for part, found in parts.items()}
        numbers = {part: sorted(number for number, _ in found) for part, found in parts.items()}
        runs.append(Run(dict(key), suffix, folder.relative_to(root), files, _problem(numbers)))
    return runs


def _one_a_name(runs: Iterable[Run]) -> list[Run]:
    """Keep the first run of each name, as a map has but that name; a magnitude alone gives way to one that is whole."""
    kept: dict[tuple, Run] = {}
    for run in runs:
        key = (*run.entities.items(),)
        if key not in kept or (kept[key].problem and not run.problem):
            kept[key] = run
    return [kept[key] for key in sorted(kept)]


def _problem(echoes: Mapping[str, Sequence[int]]) -> str | None:
    """Say why no map can be made of parts with these echoes, by number; 0 is a file that tells none."""
    pair = ("real", "imag") if "real" in echoes and "imag" in echoes else ("phase",)
    if not all(part in echoes for part in pair):
        return f"a scan must have phase, or real and imaginary parts, got {' and '.join(sorted(echoes))} alone"
    wanted = {part: echoes[part] for part in (*pair, *(["mag"] if "mag" in echoes and pair == ("phase",) else []))}
    counts = {len(numbers) for numbers in wanted.values()}
    # what has no number can't be held against one that has
    if len(counts) == 1 and len({tuple(numbers) for numbers in wanted.values() if 0 not in numbers}) <= 1:
        return None
    every = {number for numbers in wanted.values() for number in numbers} - {0}
    missing = {part: sorted(every.difference(numbers)) for part, numbers in wanted.items()}
    got = ", ".join(f"{len(numbers)} of {part}" for part, numbers in wanted.items())
    lacks = "; ".join(f"{part} lacks echo {', '.join(map(str, lost))}" for part, lost in missing.items() if lost)
    return f"a scan must have the same echoes of each part, got {got}" + (f": {lacks}" if lacks else "")
