"""From a block on arrays to the method on a field map: each inversion is written once, and documented once.

    tv = method(solve_tv)    solve_tv(field, mask, geometry, *, noise, magnitude, options) -> Solution
                             tv(field_map, *, options) -> Solution

What the block asks for that a field map knows is taken from it; the rest are options. What options of one name mean is
the same everywhere, and said here.
"""

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

from jax.typing import ArrayLike

from qsmjax.inversion.frame import MARGIN, Block, in_frame
from qsmjax.inversion.solution import Solution
from qsmjax.physics.field_map import FieldMap

Method = Callable[..., Solution]

KNOWN = ("noise", "magnitude", "radians_per_ppm")
"""Attributes of a field map that a block may ask for."""

MEANINGS = {
    "field_map": "local field.",
    "weight": "of the variation [ppm mm]; by default the one that the noise asks for (`weighting.auto_weight`).",
    "max_iterations": "limit of the iterations.",
    "tolerance": "relative change of chi at which to stop; None for exactly `max_iterations`, through which\n"
    "    reverse-mode gradients flow.",
    "report": "called after every iteration with its number and the change of chi.",
}
"""What arguments mean in every method whose own documentation does not say otherwise."""

RAISES = """Raises:
  ValueError: if an option is not positive, or the mask is empty.
  FloatingPointError: if the solution is not finite; the iteration is named."""

NUMBERS: dict[Any, Any] = {ArrayLike: float, ArrayLike | None: float | None}
"""How a number that a block may trace is typed by a user."""


def method(block: Block, *, takes: str = "localfield", margin: float = MARGIN) -> Method:
    """Make the method on field maps of a block on arrays, with the block's name, options and documentation.

    Args:
      block: `solve_NAME(field, mask, geometry, *, options)`; the options named in `KNOWN` come from the field map.
      takes: what field it inverts, "localfield" or "totalfield": the method's attribute of that name, read by `taken`.
      margin: zeros around the mask's box, as a part of it.

    Returns:
      `NAME(field_map, *, options)`, which runs the block in the frame of the mask.
    """
    source = inspect.unwrap(block)
    kinds = typing.get_type_hints(source)
    asked = [p for p in inspect.signature(source).parameters.values() if p.kind is p.KEYWORD_ONLY]
    uses = tuple(p.name for p in asked if p.name in KNOWN)
    options = [p.replace(annotation=NUMBERS.get(kinds[p.name], kinds[p.name])) for p in asked if p.name not in KNOWN]
    first = inspect.Parameter("field_map", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=FieldMap)
    signature = inspect.Signature([first, *options], return_annotation=Solution)

    def run(*args: Any, **given: Any) -> Solution:
        bound = signature.bind(*args, **given)
        bound.apply_defaults()
        return in_frame(block, uses=uses, margin=margin, **bound.arguments)

    run.__name__ = run.__qualname__ = block.__name__.removeprefix("solve_")
    run.__module__ = block.__module__
    run.__doc__ = document(inspect.getdoc(block) or "", list(signature.parameters), takes)
    run.takes = inspect.unwrap(run).takes = takes  # type: ignore[attr-defined]
    # a type checker that wraps functions leaves the types of what it wrapped: readers unwrap it first
    for function in (run, inspect.unwrap(run)):
        function.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()} | {"return": Solution}
    run.__signature__ = signature  # type: ignore[attr-defined]
    return run


def taken(method: Method) -> str:
    """Tell what field a method inverts: "totalfield" if it does without the removal of the background."""
    return getattr(method, "takes", "localfield")


def document(text: str, names: list[str], takes: str = "localfield") -> str:
    """Complete a block's documentation: all arguments in their order, its own words before the common ones."""
    text, _, references = text.partition("\n\nReferences:\n")
    text, _, own = text.partition("\n\nArgs:\n")
    kind = {"field_map": "total field, background and all."} if takes == "totalfield" else {}
    meanings = MEANINGS | kind | dict(re.findall(r"^  (\w+): (.*(?:\n {4,}.*)*)", own, re.MULTILINE))
    arguments = "\n".join(f"  {name}: {meanings[name]}" for name in names)
    return f"{text}\n\nArgs:\n{arguments}\n\n{RAISES}\n\nReferences:\n{references}\n"
