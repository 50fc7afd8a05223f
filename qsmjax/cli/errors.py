"""Errors as a user sees them: one line that says what must hold, what was got and the cure; exit status 2."""

import os
import signal
import sys
import threading
from collections.abc import Callable


class UserError(ValueError):
    """What the user can mend."""


class Terminated(BaseException):
    """SIGTERM: raised where the program stands, so that what is half written is taken away on the way out."""


def guarded(run: Callable[[], int]) -> int:
    """Run a command; turn what the user can mend into one line on stderr.

    Set QSMJAX_DEBUG to see the traceback instead.

    Returns:
      The command's exit status, 2 for an error that was told, 130 for an interrupt, 143 for SIGTERM.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if main else None
    try:
        return run()
    except (KeyboardInterrupt, Terminated) as stopped:
        word, status = ("interrupted", 130) if isinstance(stopped, KeyboardInterrupt) else ("terminated", 143)
        print(f"{word}: files that were finished are whole, and no other was begun", file=sys.stderr)
        return status
    except (ValueError, OSError, MemoryError, FloatingPointError) as error:
        if os.environ.get("QSMJAX_DEBUG"):
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        return 2
    finally:
        if main:
            signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _terminate(*_: object) -> None:
    raise Terminated


def describe(error: BaseException) -> str:
    """Put an error into one line."""
    if isinstance(error, MemoryError):
        return f"the volume must fit into memory, got {error or 'a refusal'}: crop it, or use a machine with more"
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename} must be accessible, got 'permission denied': choose another place with -o"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
