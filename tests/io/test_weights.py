"""Weights come back with their card, and nothing else is taken for weights."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from qsmjax.io.weights import load_weights, save_weights

VARIABLES = {
    "params": {"conv": {"kernel": np.arange(8, dtype=np.float32).reshape(2, 4), "bias": np.ones(4, np.float32)}},
    "batch_stats": {"norm": {"mean": np.zeros(4, np.float32)}},
}


def test_arrays_and_card_come_back(tmp_path):
    save_weights(tmp_path / "w.safetensors", VARIABLES, {"name": "tiny", "licence": "CC0"})
    variables, card = load_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(variables["params"]["conv"]["kernel"], VARIABLES["params"]["conv"]["kernel"])
    np.testing.assert_array_equal(variables["batch_stats"]["norm"]["mean"], np.zeros(4))
    assert card["name"] == "tiny" and len(card["sha256"]) == 64


def test_files_whose_hash_is_of_the_arrays_alone_are_read_too(tmp_path):
    array = np.arange(3, dtype=np.float32)
    digest = hashlib.sha256(b"a float32 (3,) " + array.tobytes()).hexdigest()
    card = json.dumps({"name": "old", "sha256": digest})
    save_file({"a": array}, tmp_path / "old.safetensors", metadata={"format": "qsmjax-1", "card": card})
    variables, told = load_weights(tmp_path / "old.safetensors")
    np.testing.assert_array_equal(variables["a"], array)
    assert told["name"] == "old"


def another_card(path):
    """Say more in a card, as long as before so that the file is whole."""
    path.write_bytes(path.read_bytes().replace(b"CC0", b"GPL"))


def flipped(path):
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 0xFF
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (flipped, "match the hash"),
        (another_card, "match the hash"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "cannot be read"),
        (lambda path: path.write_bytes(b"\x80\x04\x95 a pickle"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: save_file({"a": np.ones(3)}, path), "without its card"),
    ],
)
def test_spoilt_weights_are_refused(tmp_path, spoil, message):
    path = tmp_path / "w.safetensors"
    save_weights(path, VARIABLES, {"licence": "CC0"})
    spoil(path)
    with pytest.raises(ValueError, match=message):
        load_weights(path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="must exist"):
        load_weights(tmp_path / "none.safetensors")
