"""params.json: each key optional, each checked."""

import json

import pytest

from qsmjax.io.sidecar import load_json, load_parameters, save_json


def test_all_keys_are_read(tmp_path):
    values = {"TE": [0.004, 0.012], "B0": 3, "B0_dir": [0, 0, 1], "voxel_size": [1, 1, 2]}
    (tmp_path / "params.json").write_text(json.dumps(values))
    found = load_parameters(tmp_path / "params.json")
    assert found.te == (0.004, 0.012) and found.b0 == 3 and found.b0_dir == (0, 0, 1) and found.voxel_size == (1, 1, 2)


def test_no_key_is_needed(tmp_path):
    (tmp_path / "params.json").write_text("{}")
    assert load_parameters(tmp_path / "params.json").b0 is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[1]", "must hold a JSON object"),
        ('{"te": [0.004]}', "keys among TE"),
        ('{"TE": [4.0]}', "must be in seconds"),
        ('{"B0": "three"}', "B0 must be 1 positive"),
        ('{"B0": -3}', "B0 must be 1 positive"),
        ('{"B0_dir": [0, 1]}', "B0_dir must be 3 finite"),
        ('{"voxel_size": [1, 1, 0]}', "voxel_size must be 3 positive"),
        ('{"voxel_size": [1, 1, NaN]}', "voxel_size must be 3 positive"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, text, message):
    (tmp_path / "params.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_parameters(tmp_path / "params.json")


def test_objects_come_back(tmp_path):
    save_json(tmp_path / "a.json", {"Units": "ppm"})
    assert load_json(tmp_path / "a.json") == {"Units": "ppm"}
