"""Total field to local field."""

from collections.abc import Callable

from qsmjax.physics.field_map import FieldMap

METHODS: dict[str, Callable[..., FieldMap]] = {}
