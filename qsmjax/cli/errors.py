"""Errors as a user sees them: one line that says what must hold, what was got and the cure; exit status 2."""

import _thread
import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from qsmjax.numerics.memory import exhausted

PATIENCE = 2.0
"""After a signal, seconds for the program to come out of compiled code."""
RETURN = 0.1
"""Seconds for a callback that loses a signal's exception to return."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What a system says when no more can be written: disk full, quota reached, file too large; and where nothing can."""


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
    try:
        with _signals():
            return run()
    except (KeyboardInterrupt, Terminated) as stopped:
        return _tell(signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else signal.SIGTERM)
    except Exception as error:
        if os.environ.get("QSMJAX_DEBUG") or not mendable(error):
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        return 2


def end(status: int) -> NoReturn:
    """End the process of a command: at once after a signal, as what is still computed would outlive the interpreter."""
    if status in (130, 143):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _tell(number: int) -> int:
    word = "interrupted" if number == signal.SIGINT else "terminated"
    print(f"{word}: files that were finished are whole, and no other was begun", file=sys.stderr)
    return 128 + number


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Raise at SIGINT and SIGTERM where the program stands; in compiled code, which never looks, end it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # sockets, as not every system has pipes that a signal may write to
    heard, (ear, mouth) = threading.Event(), socket.socketpair()
    mouth.setblocking(False)

    def stop(number: int, _: object) -> None:
        heard.set()
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    def unraisable(lost: "sys.UnraisableHookArgs") -> None:
        # a callback's exceptions end in it (a garbage collector's, say): raise this one again, behind it
        number = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}.get(lost.exc_type)
        if number is None:
            hook(lost)
        else:
            heard.clear()
            threading.Timer(RETURN, _thread.interrupt_main, [number]).start()

    def listen() -> None:
        while (told := ear.recv(1)) != b"\0":
            # whoever trains has a handler of its own, which saves
            if signal.getsignal(told[0]) is stop and not heard.wait(PATIENCE):
                end(_tell(told[0]))

    # an interrupt that the shell wants ignored stays so
    numbers = [signal.SIGTERM, *([signal.SIGINT] if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN else [])]
    before = {number: signal.signal(number, stop) for number in numbers}
    previous = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        mouth.send(b"\0")
        listener.join()
        ear.close()
        mouth.close()


def mendable(error: BaseException) -> bool:
    """Say whether an error is of what was given, of files or of memory: a line is told then, and no traceback."""
    return isinstance(error, ValueError | OSError | MemoryError | FloatingPointError) or exhausted(error)


def describe(error: BaseException) -> str:
    """Put an error into one line."""
    if isinstance(error, MemoryError) or exhausted(error):
        got = " ".join(str(error).split())[:200] or "a refusal"
        cure = "crop it, use a machine with more, or on a GPU say JAX_PLATFORMS=cpu"
        return f"the volume must fit into memory, got {got}: {cure}"
    if isinstance(error, OSError) and error.errno in CLOSED and error.filename:
        reason = str(error.strerror).lower()
        return f"{error.filename} must be accessible, got '{reason}': change its permissions, or choose another place"
    if isinstance(error, OSError) and error.errno in FULL:
        return f"the disk must have room for the results, got '{error.strerror}': free some, then again"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
