"""What is found on the host, under jax.grad too: whole turns and masks, whose derivative is zero.

Beneath jax.grad, jax.vjp and jax.jvp arrays have values to look at; inside jax.jit and jax.vmap they have none.
"""

import jax
import numpy as np
from jax.typing import ArrayLike


def on_host(name: str, array: ArrayLike) -> np.ndarray:
    """Take an array's values to the host, without their derivative.

    Raises:
      ValueError: if it has none yet, as inside jax.jit.
    """
    values = jax.lax.stop_gradient(array) if isinstance(array, jax.core.Tracer) else array
    if isinstance(values, jax.core.Tracer):
        raise ValueError(
            f"{name} must have values where turns and masks are found on the host, got a tracer: call this outside "
            "jax.jit and jax.vmap (jax.grad is fine), or compile unwrap_laplacian and fit_signal in its place"
        )
    return np.asarray(values)
