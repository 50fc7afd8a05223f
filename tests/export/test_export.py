"""The exported graph, run by onnxruntime, is the inversion: network alone and whole chain, on several shapes."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.cli.main import main
from qsmjax.export import physics
from qsmjax.export.correction import correction
from qsmjax.export.fourier import frame
from qsmjax.export.graph import Graph
from qsmjax.export.model import learned_model
from qsmjax.inference.learned import learned_inversion
from qsmjax.inference.network import read_network
from qsmjax.inference.shipped import FOLDER
from qsmjax.io.weights import save_weights
from qsmjax.models import unrolled
from qsmjax.models.build import build
from qsmjax.models.correction import correct
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime must be installed, the extra 'onnx'")
RNG = np.random.default_rng(0)
VOXEL_SIZE, B0_DIR = np.float32([1.0, 1.1, 1.6]), np.float32([0.4, 0.1, 0.9])
DEEP = {"name": "correction", "width": [4, 6, 8, 10], "blocks": 2}
NOISE = 1e-3
BALL = (40, 36, 30), (15, 14, 12)
"""Shape and radii: those of the inversion's own test, for whose frame it is compiled already."""
OTHER = (31, 44, 37), (12, 19, 15)


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def drawn(config, seed):
    """Parameters of which none is zero."""
    network = build(config)
    shape = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 16, 16, 16, 8)), np.zeros((1, 10)))
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / max(np.prod(leaf.shape[:-1]), 4) ** 0.5
    return jax.tree.map(draw, shape)["params"]


def ball(shape, radii, *known):
    """A cube in a ball off the grid's middle, oblique, with noise that rises along x, and a magnitude with edges."""
    grid = geometry(shape, VOXEL_SIZE, B0_DIR)
    at = np.stack(np.meshgrid(*[np.arange(n) - (n - 3) / 2 for n in shape], indexing="ij"))
    mask = np.linalg.norm(at / np.reshape(radii, (3, 1, 1, 1)), axis=0) < 1
    chi = np.where((np.abs(at) < 4).all(axis=0), 0.12, -0.02) * mask
    told = {"noise": NOISE * (1 + 0.02 * at[0]), "magnitude": 1 + 0.5 * (at[1] > 2)}
    field = np.asarray(forward_field(chi, grid)) + told["noise"] * RNG.normal(size=shape)
    return field_map(field, mask, grid, **{name: told[name] for name in known})


def run(model, scan):
    """Run a model on a field map, with what is no number outside the mask."""
    mask = np.asarray(scan.mask)
    given = {
        "field": np.where(mask, scan.field, np.float32(np.nan)),
        "mask": 2 * mask.astype(np.float32),
        "voxel_size": VOXEL_SIZE,
        "b0_dir": 3 * B0_DIR,
    }
    for name in ("noise", "magnitude"):
        part = getattr(scan, name)
        given[name] = np.zeros(mask.shape, np.float32) if part is None else np.asarray(part)
    return dict(zip(("chi", "std", "start"), session(model).run(["chi", "std", "start"], given)))


def assert_same(made, solution, mask, within=1e-5):
    """Sixty iterations and as many transforms, rounded otherwise, may differ by a hundred thousandth of the map.

    The deviation is an exponential, and may differ by three times that.
    """
    for name, allowed in (("chi", within), ("std", 3 * within)):
        assert np.abs(made[name] - getattr(solution, name)).max() < allowed * np.ptp(made[name])
    assert np.ptp((made["chi"] - made["start"])[mask]) > 1e-3, "the network did something"
    assert np.ptp(made["chi"]) > 0.05 and not made["chi"][~mask].any() and not made["std"][~mask].any()


@pytest.mark.parametrize("config", [DEEP, "shipped"], ids=["deeper", "shipped"])
def test_the_network_is_the_same_on_any_shape(config):
    if config == "shipped":
        _, network, variables, _ = read_network(FOLDER / "learned.safetensors")
        params = variables[min(variables)]
    else:
        network, params = build(config), drawn(config, 1)
    graph = Graph()
    inputs = graph.input("features", (1, 8, "x", "y", "z")), graph.input("numbers", (1, 10))
    change, spread = correction(graph, network, params, *inputs)
    ran = session(graph.model({"change": (change, (1, 1, "x", "y", "z")), "spread": (spread, (1, 1, "x", "y", "z"))},
                              about="", card={}))  # fmt: skip
    for shape in ((1, 2, 1), (2, 1, 3)):
        features = jnp.asarray(RNG.normal(size=(*(n * network.stride for n in shape), 8)), jnp.float32)
        numbers = unrolled.about(jnp.asarray(VOXEL_SIZE), jnp.asarray(B0_DIR))
        given = {"features": np.moveaxis(np.asarray(features), -1, 0)[None], "numbers": np.asarray(numbers)[None]}
        for ours, theirs in zip(correct(network, params, features, numbers), ran.run(None, given)):
            assert np.abs(theirs[0, 0] - ours).max() < 1e-5 * np.ptp(ours)


@pytest.mark.slow
def test_the_chain_is_the_same_with_stages_of_any_depth():
    variables = {f"stage_{i}": drawn(DEEP, i) for i in range(2)}
    card = {"calibration": [-0.4, 0.9]}
    scan = ball(*BALL, "noise")
    made = run(learned_model(build(DEEP), variables, card), scan)
    # weights as drawn enlarge what the first stage rounds otherwise
    assert_same(made, learned_inversion(build(DEEP), variables, card)(scan), np.asarray(scan.mask), 5e-5)


@pytest.mark.parametrize("rise", [0.02, 0.0], ids=["noise that varies", "flat noise"])
def test_voxels_without_noise_tell_no_edges(rise):
    """They were not measured: the noise of the others, or the magnitude where that is flat, shows the structure."""
    shape, scan = (24, 20, 18), ball((24, 20, 18), (9, 7, 6), "magnitude")
    noise = np.broadcast_to(NOISE * (1 + rise * np.arange(24.0)[:, None, None]), shape).astype(np.float32)
    noise = np.where(np.indices(shape).sum(0) % 9 == 0, 0, noise)
    weigh = jax.jit(unrolled.weigh)
    expected = unrolled.start(weigh(scan.field, scan.mask, scan.geometry, noise, scan.magnitude))
    graph = Graph()
    volumes = [graph.input(name, shape) for name in ("field", "mask", "noise", "magnitude")]
    size, b0_dir = (graph.input(name, (3,)) for name in ("voxel_size", "b0_dir"))
    seen = physics.scan(frame(graph, tuple(graph.integers(n) for n in shape), size, b0_dir), *volumes)
    made = {name: (part, shape) for name, part in zip(("plain", "sharp"), physics.start(seen))}
    known = [np.asarray(part * scan.mask, np.float32) for part in (scan.field, 1.0, noise, scan.magnitude)]
    given = dict(zip(("field", "mask", "noise", "magnitude"), known))
    given |= {"voxel_size": VOXEL_SIZE, "b0_dir": B0_DIR / np.linalg.norm(B0_DIR)}
    for ours, theirs in zip(expected, session(graph.model(made, about="", card={})).run(None, given)):
        assert np.abs(ours - theirs).max() < 1e-5 * np.ptp(ours)


@pytest.mark.parametrize(
    ("size", "known"),
    [
        pytest.param(BALL, ["noise"], marks=pytest.mark.slow),
        pytest.param(BALL, ["noise", "magnitude"], marks=pytest.mark.slow),
        pytest.param(OTHER, ["magnitude"], marks=pytest.mark.slow),
        (OTHER, []),
    ],
    ids=["noise", "both", "magnitude", "neither"],
)
def test_what_the_command_writes_is_what_is_shipped(size, known, tmp_path):
    file = str(tmp_path / "learned.onnx")
    assert main(["export", file, "--quiet"]) == 0
    scan = ball(*size, *known)
    _, network, variables, card = read_network(FOLDER / "learned.safetensors")
    # the file has no rehearsal
    ours = learned_inversion(network, variables, card)(scan, bootstrap=False)
    assert_same(run(file, scan), ours, np.asarray(scan.mask))


def test_the_file_says_what_it_is(tmp_path, capsys):
    file = tmp_path / "learned.onnx"
    assert main(["export", str(file)]) == 0
    assert "MB" in capsys.readouterr().err
    told = session(str(file)).get_modelmeta()
    card = read_network(FOLDER / "learned.safetensors")[3]
    assert {name: json.loads(told.custom_metadata_map[name]) for name in card} == card
    assert "ppm" in told.description


def test_weights_of_another_network_are_refused():
    for other in ({"blocks": 1}, {"blocks": 3}, {"width": [4, 6, 8, 12]}):
        with pytest.raises(ValueError, match="must be those of the network"):
            learned_model(build(DEEP | other), {"params": drawn(DEEP, 0)}, {})


def test_what_cannot_be_exported_is_told_in_a_line(tmp_path, capsys, monkeypatch):
    assert main(["export", str(tmp_path / "learned.pt")]) == 2
    assert "must end in .onnx" in capsys.readouterr().err
    save_weights(tmp_path / "weights.safetensors", {}, {"name": "tiny", "network": {"name": "qsmnet"}})
    assert main(["export", str(tmp_path / "a.onnx"), "--workdir", str(tmp_path)]) == 2
    assert "got a qsmnet" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [name for name in sys.modules if name.startswith("qsmjax.export")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["export", str(tmp_path / "a.onnx")]) == 2
    assert "pip install 'qsmjax[onnx]'" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.onnx"))
