"""Quantitative susceptibility mapping in JAX: from the field of a gradient-echo scan to tissue susceptibility."""

from collections.abc import Callable


def load(name: str) -> Callable:
    """Load a network that comes with qsmjax: `qsmjax.load("learned")(field_map)` has chi and std [ppm].

    Args:
      name: learned, learned_total (for what the default removal of the background leaves), qsmnet or qsmnet_plus; the
        latter two know no std.

    Returns:
      (FieldMap, *, tile, halo) -> Solution; of the first two with an option `bootstrap`, False for no rehearsal of the
      deviation, of learned with `residue`, False to look for no background.

    Raises:
      ValueError: if there is none of that name.
    """
    from qsmjax.inference.shipped import load_shipped  # not paid for by others

    return load_shipped(name)
