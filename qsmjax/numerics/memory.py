"""What says that a device's memory is used up."""


def exhausted(error: BaseException) -> bool:
    """Say whether XLA raised an error since memory did not hold what it was to compute."""
    # JAX has no class of its own for it: jax.errors.JaxRuntimeError carries the status in its words
    return isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
