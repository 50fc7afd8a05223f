"""A folder held by one process: a second one that would write into it is told so."""

import contextlib
import fcntl
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(workdir: str | Path) -> Iterator[None]:
    """Hold a work folder for this process, and make it where it is not there.

    Raises:
      ValueError: if another run holds it.
    """
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{folder} must belong to one run, got another at work in it: choose another") from error
        except OSError as error:
            # some network file systems know no locks
            warnings.warn(f"{folder} can't be held ({error.strerror}): see that no other run is in it", stacklevel=3)
        yield
