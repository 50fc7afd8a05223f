"""Configs travel through JSON unchanged, and say what is wrong with a setting."""

import json

import pytest

from qsmjax.training.config import HEEDED, TrainConfig, from_dict, with_settings
from qsmjax.training.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_travel_through_json(name):
    config = preset(name)
    assert config.preset == name
    assert from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_qsmnet_is_the_paper_s():
    config = preset("qsmnet")
    assert (config.width, config.depth, config.kernel, config.activation) == (32, 4, 5, "relu")
    assert (config.batch, config.learning_rate, config.patch, config.grid) == (5, 1e-3, (64, 64, 64), (6, 8, 7))
    assert config.loss_weights() == (1.0, 0.5, 0.1)
    # 16,800 patches, 25 times, in batches of 5
    assert config.steps == 16_800 * 25 // 5


def test_settings_are_typed():
    texts = ["width=4", "learning_rate=1e-4", "patch=32", "noise=0,0.002", "remat=true", "dtype=bfloat16", "rotation=0"]
    config = with_settings(TrainConfig(), texts)
    assert (config.width, config.learning_rate, config.patch) == (4, 1e-4, (32, 32, 32))
    assert (config.noise, config.remat, config.dtype, config.rotation) == ((0.0, 0.002), True, "bfloat16", 0.0)
    assert isinstance(config.rotation, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat=1", "'learning_rat': did you mean 'learning_rate'"),
        ("width", "key=value, got 'width'"),
        ("width=1.5", "width must be a whole number, got 1.5"),
        ("width=wide", "width must be a whole number, got 'wide'"),
        ("width=0", "width must be positive, got 0"),
        ("steps=true", "steps must be a whole number, got 'true'"),
        ("remat=3", "remat must be true or false, got '3'"),
        ("patch=1,2", "patch must be 3 numbers"),
        ("patch=8,8,x", "patch must be a whole number, got 'x'"),
        ("kernel=4", "kernel must be odd, got 4"),
        ("noise=2,1", "noise must be the least and the largest"),
        ("batch=3 accumulate=2", "batch must be a whole number"),
        ("accumulate=2", "batch must be a multiple of accumulate"),
        ("activation=tanh", "activation must be one of relu"),
        ("dtype=float64", "dtype must be one of float32"),
        ("ema=1", "ema must be below 1"),
        ("seed=-1", "seed must not be negative"),
        ("validation_heads=0", "validation_heads must be positive"),
        ("schedule=linear", "schedule must be constant or cosine"),
        ("begin=learned", "begin must be left out for network qsmnet, got learned: it heeds preset"),
        ("subjects=3", "subjects must be left out for network qsmnet"),
    ],
)
def test_a_wrong_setting_is_told(text, message):
    with pytest.raises(ValueError, match=message):
        with_settings(TrainConfig(), [text])


def test_a_patch_must_fit_the_network_that_is_folded():
    for patch in ("20", "48,32,32"):
        with pytest.raises(ValueError, match="patch must be three times the same multiple of 8"):
            with_settings(preset("learned"), [f"patch={patch}"])


@pytest.mark.parametrize("text", ["ema=0", "noise=1,2", "depth=9", "voxel_size=3", "checkpoint_every=5"])
def test_what_the_learned_inversion_does_not_heed_is_refused(text):
    with pytest.raises(ValueError, match=f"{text.split('=')[0]} must be left out for network correction"):
        with_settings(preset("learned"), [text])


def test_every_setting_is_heeded_and_presets_set_no_others():
    assert set(HEEDED["qsmnet"]) | set(HEEDED["correction"]) == set(TrainConfig.__dataclass_fields__)
    for name, changes in PRESETS.items():
        assert set(changes) <= set(HEEDED[preset(name).network]), name


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'qsmnet_plus'"):
        preset("qsmnet-plus")
