"""Write beside the target, then rename: a reader sees the old file or the new one, never half of one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder, with the same suffixes; move it to `path` if nothing was raised.

    Raises:
      OSError: if the folder does not exist or cannot be written to.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} must be a file to write, got a folder: name a file in it")
    suffixes = "".join(target.suffixes[-2:])
    # the umask of the process decides who may read the result, as for any file written directly
    handle, name = tempfile.mkstemp(
        prefix=f".{target.name.removesuffix(suffixes)}.", suffix=suffixes, dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
