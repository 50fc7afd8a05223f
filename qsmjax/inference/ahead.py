"""What will be called is compiled in a thread, while what is called first still runs.

A flow is a function whose first argument calls compiled functions for it. It is walked twice: in a thread, with shapes
in place of arrays, to have each of them compiled; and with arrays, where it finds them so, or waits.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

Call = Callable[..., Any]


@contextlib.contextmanager
def ahead(flow: Callable[..., Any], *args: Any) -> Iterator[Call]:
    """Compile what flow(call, *args) will call; within it, hand out the call for the walk with arrays.

    That must take the same steps in the same order. JAX keeps what is compiled, so that nothing else is handed over;
    what goes wrong ahead is left for the arrays to find, and logged for who debugs. Left early, it waits for what is
    being compiled. Of arrays that are traced, or committed to a device, nothing is compiled ahead; settings of JAX that
    are the calling thread's alone are not known to the other one, whose work they may make vain.

    Args:
      flow: takes a call, then `args`.
      args: arrays, in trees, of the shapes that the flow will get; what is no array is the same for both.
    """
    if not all(_is_free(part) for part in jax.tree.leaves(args)):
        yield lambda function, *parts: function(*parts)
        return
    # true for each function that is compiled; false once no more will be
    told: queue.SimpleQueue[bool] = queue.SimpleQueue()
    left, over = threading.Event(), False

    def compiled(function: Any, *shapes: Any) -> Any:
        if left.is_set():
            raise _Left
        function.lower(*shapes).compile()
        told.put(True)
        return function.eval_shape(*shapes)

    def walk() -> None:
        try:
            flow(compiled, *jax.tree.map(_shape_of, args))
        except _Left:
            pass
        except Exception:
            logging.getLogger(__name__).debug("no more is compiled ahead", exc_info=True)
        finally:
            told.put(False)

    def call(function: Any, *parts: Any) -> Any:
        nonlocal over
        over = over or not told.get()
        return function(*parts)

    thread = threading.Thread(target=walk)
    thread.start()
    try:
        yield call
    finally:
        left.set()
        thread.join()


def _is_free(part: Any) -> bool:
    return not isinstance(part, jax.Array) or not (isinstance(part, jax.core.Tracer) or part.committed)


def _shape_of(part: Any) -> Any:
    if not isinstance(part, jax.Array):
        return part
    return jax.ShapeDtypeStruct(part.shape, part.dtype, weak_type=part.weak_type)


class _Left(Exception):
    """Ends the walk with shapes: the other one has ended."""
