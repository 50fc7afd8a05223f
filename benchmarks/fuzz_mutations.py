"""What the fuzzer does to well-formed bytes and JSON."""

import struct

import numpy as np

Rng = np.random.Generator


def mutate(rng: Rng, data: bytes, head: int | None = None) -> bytes:
    """Flip, overwrite, cut, insert or repeat some bytes, mostly in the first `head`."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        if not out:
            break
        limit = min(head or len(out), len(out)) if rng.uniform() < 0.85 else len(out)
        at = int(rng.integers(limit))
        kind = rng.integers(7)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == 2:
            out[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\xc0\x7f", b"\0\0\x80\x7f"])
        elif kind == 3:
            out[at : at + 2] = struct.pack("<h", int(rng.choice([-1, 0, 1, 32767, -32768, 256])))
        elif kind == 4:
            del out[int(rng.integers(len(out))) :]
        elif kind == 5:
            out[at:at] = rng.bytes(int(rng.integers(1, 9)))
        else:
            out[at : at + 1] = out[at : at + int(rng.integers(1, 64))] * 2
    return bytes(out)


WORDS = (
    "",
    "nan",
    "-inf",
    "1e999",
    "-1",
    "0",
    "1e-30",
    "true",
    "None",
    "null",
    "[]",
    "{}",
    "((",
    "9" * 400,
    "../../x",
    "\0",
    "é",
    "1,2,3",
    "1,2",
    "a=b",
    " ",
    "%s",
    "\n",
    "0x10",
    "1_0",
    "١",
)


def anything(rng: Rng, depth: int = 0) -> object:
    """Return a JSON value of any kind."""
    kind = rng.integers(9 if depth < 3 else 6)
    if kind < 2:
        return [0, 1, -1, 1e308, -1e-308, 3, 2**70, 0.5, float("nan"), float("inf")][rng.integers(10)]
    if kind == 2:
        return str(rng.choice(WORDS))
    if kind < 5:
        return [None, True, False][rng.integers(3)]
    if kind < 7:
        return [anything(rng, depth + 1) for _ in range(rng.integers(5))]
    return {str(rng.choice(WORDS)): anything(rng, depth + 1) for _ in range(rng.integers(4))}


def mutate_json(rng: Rng, value: object) -> object:
    """Change something somewhere in a JSON value."""
    if isinstance(value, dict) and value and rng.uniform() < 0.85:
        key = list(value)[rng.integers(len(value))]
        changed = dict(value)
        kind = rng.integers(5)
        if kind == 0:
            del changed[key]
        elif kind == 1:
            changed[str(rng.choice(WORDS))] = anything(rng)
        else:
            changed[key] = mutate_json(rng, value[key])
        return changed
    if isinstance(value, list) and value and rng.uniform() < 0.7:
        at = int(rng.integers(len(value)))
        return [*value[:at], mutate_json(rng, value[at]), *value[at + 1 :]]
    return anything(rng)
