"""Write beside the target, then rename: a reader sees the old file or the new one, never half of one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Give a path of the same name in a hidden folder beside it; move what was written there if nothing was raised.

    What else is written into the hidden folder moves too, and `path` last: files that belong together come together,
    and a disk that was full in between leaves all the old ones. What a kill leaves has the name of no result.

    Raises:
      OSError: if the folder does not exist, no longer does, or cannot be written to.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} must be a file to write, got a folder: name a file in it")
    try:
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=target.parent) as name:
            temporary = Path(name) / target.name
            yield temporary
            written = sorted((p for p in Path(name).iterdir() if p.is_file()), key=lambda p: p == temporary)
            # all of it on the disk before anything old is gone
            for file in written:
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
            for file in written:
                file.replace(target.with_name(file.name))
    except OSError as error:
        if not target.parent.is_dir():
            raise FileNotFoundError(f"{target.parent} must be a folder, got none (any more): make it first") from error
        if ".unfinished-" in str(error.filename):
            error.filename = str(target.parent)
        raise
