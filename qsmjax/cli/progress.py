"""Progress of an iterative stage: its name, iteration, change, time left."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def iterations(
    method: Callable, options: Mapping[str, Any], *, quiet: bool, stage: str = "inversion"
) -> Iterator[dict[str, Any]]:
    """Give a method the callback that draws its progress, if it takes one and someone is looking.

    Args:
      method: a stage's; one that reports its iterations takes `report`.
      options: those set by the user.
      quiet: draw nothing.
      stage: its name.

    Yields:
      The keyword arguments to add to the call.
    """
    parameters = inspect.signature(method).parameters
    if quiet or "report" not in parameters or not sys.stderr.isatty():
        yield {}
        return
    limit = options.get("max_iterations", getattr(parameters.get("max_iterations"), "default", None))
    columns = (
        TextColumn("{task.description}, iteration {task.completed}"),
        BarColumn(),
        TextColumn("change {task.fields[change]:.1e}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(stage, total=limit, change=float("nan"))
        yield {"report": lambda count, change: progress.update(task, completed=int(count), change=float(change))}
