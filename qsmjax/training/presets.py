"""Training runs by name."""

from typing import Any

from qsmjax.training.config import TrainConfig, nearest

# chi of up to +-1.4 ppm, as in haemorrhages and calcifications
PLUS: dict[str, Any] = {"chi_scale": (0.5, 4.0), "negate": 0.5}
# 3.2 million weights instead of 99.5, 13 MB: three poolings see beyond a patch of 64 voxels, and channels spent on them
# would be missing where the voxels are
NARROW: dict[str, Any] = {
    "width": 24,
    "depth": 3,
    "kernel": 3,
    "momentum": 0.9,
    "dtype": "bfloat16",
    "variants": 2,
    "batch": 4,
    "steps": 6000,
    "learning_rate": 4e-3,
    "warmup": 200,
    "schedule": "cosine",
    "clip": 1.0,
    "ema": 0.995,
    "validate_every": 500,
    "checkpoint_every": 500,
}
PRESETS: dict[str, dict[str, Any]] = {
    "qsmnet": {},
    "qsmnet_plus": PLUS,
    # narrower than the paper's: minutes on one GPU, weights small enough to ship; for --labels
    "qsmnet_narrow": NARROW,
    "qsmnet_plus_narrow": NARROW | PLUS,
    # the inversion that is shipped: needs --labels
    "learned": {
        "network": "correction",
        "width": 64,
        "dtype": "bfloat16",
        "subjects": 140,
        "scans": 2,
        "joining": 0.85,
        "patch": (48, 48, 48),
        "batch": 16,
        "steps": 13_300,
        "learning_rate": 1e-2,
        "validate_every": 700,
    },
    # the same for what the default removal leaves of a total field
    "learned_total": {
        "network": "correction",
        "input": "totalfield",
        "begin": "learned",
        "width": 64,
        "subjects": 130,
        "patch": (48, 48, 48),
        "batch": 4,
        "steps": 5200,
        "learning_rate": 4e-3,
        "validate_every": 200,
    },
    # a QSMnet small enough that two CPU cores train it in ten minutes, on heads without lesions: few as they are, they
    # outweigh the tissue in the variance that maps are normalised by
    "tiny": {
        "width": 8,
        "depth": 2,
        "kernel": 3,
        "momentum": 0.9,
        "patch": (32, 32, 32),
        "lesions": 0.0,
        "batch": 4,
        "steps": 800,
        "learning_rate": 6e-3,
        "warmup": 50,
        "schedule": "cosine",
        "ema": 0.98,
        "validate_every": 100,
        "checkpoint_every": 200,
        "validation_shape": (64, 64, 64),
    },
}


def preset(name: str) -> TrainConfig:
    """Return a config by its name.

    Raises:
      ValueError: if there is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"config must be one of {', '.join(PRESETS)}, got {name!r}{nearest(name, PRESETS)}")
    return TrainConfig(preset=name, **PRESETS[name])
