"""What a training run is: one frozen, flat config that JSON holds and that travels in every checkpoint.

`--set key=value` changes one field, typed and checked; `training.presets` holds configs by name.
"""

import dataclasses
import difflib
import json
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from qsmjax.models.build import build


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults are QSMnet's own.

    Attributes:
      preset: the name that it began from.
      seed: of the weights, the samples and the noise.

      network: "qsmnet", or "correction" for the learned inversion (`training.learn`); `HEEDED` says what each heeds.
      input: "localfield", or "totalfield" for what the removal of the background leaves of one (`training.totals`).
      begin: weights that the learned inversion begins from: the name of shipped ones, or a file; empty for none.
      blocks: residual blocks of the learned inversion's network at each resolution; `width` is that of the finest.
      width, depth, kernel, activation, momentum, dtype, remat: QSMnet's (`models.qsmnet`).
      subjects: simulated for the learned inversion's bank.
      scans: of each of a subject's sources, each with a direction of B0, noise and background of its own.
      joining: part of the steps over which subjects join, while others are trained on; 0 if all are there at once.
      stages: of the learned inversion, trained one after the other, each for `steps`.

      patch: voxels of a training sample.
      voxel_size: edges of a voxel [mm].
      patches: "grid" for the paper's overlapping positions, "random" for any; for maps from files.
      variants: heads made of each label map, the first of its own shape, the others bent (`training.labels`).
      grid: positions of the paper's grid along each axis.
      measured: share of samples with a measured field, where some maps have one and others none.
      rotation: largest angle between B0 and the third axis in training [degrees].
      noise: standard deviation of the field's noise, drawn between these two for each sample [ppm].
      chi_scale: a sample's susceptibility is multiplied by a factor drawn between these two.
      negate: chance that a sample's sign is turned.
      lesions: chance of each lesion in heads that are drawn (`simulate.random_chi`).

      batch: samples a step, over all devices.
      accumulate: parts that a batch is worked off in, one after the other, to save memory; each has batch norms of its
        own.
      steps: of the optimiser.
      learning_rate, warmup, schedule: rate after `warmup` steps; then "constant", or "cosine" to zero.
      clip: largest norm of the gradient; 0 for any.
      ema: decay of the parameters' moving average, which is then what is validated and exported; 0 for none.
      loss_l1, loss_model, loss_gradient: weights of the loss's terms.

      validate_every: steps between validations.
      checkpoint_every: steps between checkpoints; the last step is always kept.
      validation_heads: drawn heads to validate on, where no maps are given.
      validation_shape: their grid.
      validation_noise: standard deviation of their field's noise [ppm].

    References:
      Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030.
      Jung et al., NeuroImage 211:116619 (2020), doi:10.1016/j.neuroimage.2020.116619 (QSMnet+).
    """

    preset: str = "qsmnet"
    seed: int = 0

    network: str = "qsmnet"
    input: str = "localfield"
    begin: str = ""
    subjects: int = 24
    scans: int = 1
    joining: float = 0.0
    stages: int = 1
    blocks: int = 1
    width: int = 32
    depth: int = 4
    kernel: int = 5
    activation: str = "relu"
    momentum: float = 0.99
    dtype: str = "float32"
    remat: bool = False

    patch: tuple[int, int, int] = (64, 64, 64)
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    patches: str = "random"
    variants: int = 1
    grid: tuple[int, int, int] = (6, 8, 7)
    measured: float = 0.5
    rotation: float = 30.0
    noise: tuple[float, float] = (0.0, 0.003)
    chi_scale: tuple[float, float] = (1.0, 1.0)
    negate: float = 0.0
    lesions: float = 0.35

    batch: int = 5
    accumulate: int = 1
    steps: int = 84_000
    learning_rate: float = 1e-3
    warmup: int = 0
    schedule: str = "constant"
    clip: float = 0.0
    ema: float = 0.0
    loss_l1: float = 1.0
    loss_model: float = 0.5
    loss_gradient: float = 0.1

    validate_every: int = 1000
    checkpoint_every: int = 1000
    validation_heads: int = 1
    validation_shape: tuple[int, int, int] = (160, 192, 160)
    validation_noise: float = 0.0013

    def __post_init__(self) -> None:
        """Check what types alone cannot say.

        Raises:
          ValueError: if a value is out of range; names it, what it must be, and what it was.
        """
        self._positive("width", "kernel", "blocks", "subjects", "scans", "variants", "stages", "batch", "accumulate")
        self._positive("steps", "validate_every", "checkpoint_every")
        self._positive("learning_rate", "patch", "voxel_size", "grid", "validation_shape", "validation_heads")
        losses = ("loss_l1", "loss_model", "loss_gradient")
        for name in ("seed", "depth", "warmup", "clip", "noise", "chi_scale", "validation_noise", *losses):
            self._must(name, min(_as_tuple(getattr(self, name))) >= 0, "not be negative")
        for name in ("ema", "momentum", "negate", "lesions", "measured", "joining"):
            self._must(name, 0 <= getattr(self, name) <= 1, "lie between 0 and 1")
        self._must("ema", self.ema < 1, "be below 1")
        self._must("rotation", 0 <= self.rotation <= 90, "lie between 0 and 90 degrees")
        self._must("kernel", self.kernel % 2 == 1, "be odd")
        self._must("input", self.input in ("localfield", "totalfield"), "be localfield or totalfield")
        self._must("patches", self.patches in ("grid", "random"), "be grid or random")
        self._must("schedule", self.schedule in ("constant", "cosine"), "be constant or cosine")
        self._must("batch", self.batch % self.accumulate == 0, f"be a multiple of accumulate ({self.accumulate})")
        for name in ("noise", "chi_scale"):
            low, high = getattr(self, name)
            self._must(name, low <= high, "be the least and the largest value")
        stride = getattr(build(self.model()), "stride", None)
        if stride is not None:
            fits = len(set(self.patch)) == 1 and self.patch[0] % stride == 0
            self._must("patch", fits, f"be three times the same multiple of {stride}")

    def model(self) -> dict[str, Any]:
        """Return the part that `models.build` takes."""
        if self.network == "correction":
            widths = tuple(self.width * level for level in (1, 2, 3))
            return {"name": "correction", "dtype": self.dtype, "width": widths, "blocks": self.blocks}
        names = ("width", "depth", "kernel", "activation", "momentum", "dtype", "remat")
        return {"name": self.network, **{name: getattr(self, name) for name in names}}

    def loss_weights(self) -> tuple[float, float, float]:
        """Return the weights of the L1, model and gradient terms."""
        return self.loss_l1, self.loss_model, self.loss_gradient

    def heeded(self) -> dict[str, Any]:
        """Return the settings that the network heeds, as JSON holds them: what a card says of a run."""
        return {key: value for key, value in self.to_dict().items() if key in HEEDED[self.network]}

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; `from_dict` is its inverse."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def _positive(self, *names: str) -> None:
        for name in names:
            self._must(name, min(_as_tuple(getattr(self, name))) > 0, "be positive")

    def _must(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"{name} must {rule}, got {getattr(self, name)}")


# what both networks heed, and what the learned inversion alone
BOTH = ("preset", "seed", "network", "width", "dtype", "patch", "batch", "steps", "learning_rate", "validate_every")
INVERSION = ("input", "begin", "subjects", "scans", "joining", "stages", "blocks")
HEEDED: dict[str, tuple[str, ...]] = {
    "qsmnet": tuple(name for name in TrainConfig.__dataclass_fields__ if name not in INVERSION),
    "correction": BOTH + INVERSION,
}
"""Settings that each kind of network heeds."""


def from_dict(values: object) -> TrainConfig:
    """Make a config from what `to_dict` returned.

    Raises:
      ValueError: if a key is unknown or a value of another type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"config must hold keys with their values, got {str(values)[:80]}: is the file from a run?")
    return TrainConfig(**{key: _checked(key, value) for key, value in values.items()})


def with_settings(config: TrainConfig, settings: Iterable[str]) -> TrainConfig:
    """Change fields of a config by texts of the form key=value; tuples as 64,64,64 or, all alike, 64.

    Raises:
      ValueError: if a text has no "=", the key is unknown or not heeded by the network, or the value is not of its type
        or out of range.
    """
    changes = {}
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign:
            raise ValueError(f"--set must be given key=value, got {setting!r}")
        changes[key.strip()] = _parsed(key.strip(), text.strip())
    made = dataclasses.replace(config, **changes)
    heeded = HEEDED[made.network]
    for key, value in changes.items():
        if key not in heeded:
            raise ValueError(
                f"--set {key} must be left out for network {made.network}, got {value}: it heeds {', '.join(heeded)}"
            )
    return made


def _parsed(key: str, text: str) -> Any:
    kind = _kind(key)
    if kind is str:
        return text
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        return _checked(key, words.get(text.lower(), text))
    parts: list[Any] = [_number(part) for part in text.strip("()[]").split(",") if part.strip()]
    if typing.get_origin(kind) is not tuple:
        return _checked(key, parts[0] if len(parts) == 1 else text)
    length = len(typing.get_args(kind))
    return _checked(key, parts * length if len(parts) == 1 else parts)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _checked(key: str, value: Any) -> Any:
    kind = _kind(key)
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if not isinstance(value, (list, tuple)) or len(value) != len(inner):
            raise ValueError(f"{key} must be {len(inner)} numbers, got {value!r}")
        return tuple(_checked_scalar(key, v, k) for v, k in zip(value, inner))
    return _checked_scalar(key, value, kind)


def _checked_scalar(key: str, value: Any, kind: type) -> Any:
    # a whole number is a float too; True is not a number
    fits = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if not fits:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}
        raise ValueError(f"{key} must be {names[kind]}, got {value!r}")
    # Python's whole numbers have no end, but what computes with them has
    if isinstance(value, int) and abs(value) >= 2**31:
        raise ValueError(f"{key} must be below 2147483648, got a number of {len(str(abs(value)))} digits")
    return kind(value)


def _kind(key: str) -> Any:
    kinds = typing.get_type_hints(TrainConfig)
    if key not in kinds:
        raise ValueError(f"--set must name a setting that there is, got {key!r}{nearest(key, kinds)}")
    return kinds[key]


def nearest(name: str, names: Iterable[str]) -> str:
    """Return what to add to an error that names something that is not there."""
    close = difflib.get_close_matches(name, names, 1, 0.0)
    return f": did you mean {close[0]!r}?" if close else ""


def _as_tuple(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)
