"""Errors as a user sees them: one line that says what must hold, what was got and the cure; exit status 2."""

import os
import sys
from collections.abc import Callable


class UserError(ValueError):
    """What the user can mend."""


def guarded(run: Callable[[], int]) -> int:
    """Run a command; turn what the user can mend into one line on stderr.

    Set QSMJAX_DEBUG to see the traceback instead.

    Returns:
      The command's exit status, 2 for an error that was told, 130 for an interrupt.
    """
    try:
        return run()
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError) as error:
        if os.environ.get("QSMJAX_DEBUG"):
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        return 2


def describe(error: BaseException) -> str:
    """Put an error into one line."""
    if isinstance(error, MemoryError):
        return f"the volume must fit into memory, got {error or 'a refusal'}: crop it, or use a machine with more"
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename} must be accessible, got 'permission denied': choose another place with -o"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
