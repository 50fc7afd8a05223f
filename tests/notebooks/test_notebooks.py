"""Every notebook runs from its first cell to its last, at a small size; and what they promise of JAX and the network.

The runs are slow: `python -m pytest -m slow tests/notebooks`.
"""

import json
import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
SMALL = {
    "quickstart": {"SIZE": 20},
    "your_own_method": {"SIZE": 16, "STEPS": 2, "ITERATIONS": 4},
    "train_on_tpu": {
        "SIZE": 8,
        "STEPS": 2,
        "CONFIG": "tiny",
        "SETTINGS": ["width=2", "depth=1", "warmup=1", "validate_every=1", "checkpoint_every=1", "validation_shape=12"],
    },
}
SAID = {
    "quickstart": ["exit status 0", "tv: NRMSE", "learned: NRMSE", "field_desc-std_Chimap.nii.gz", "field_Chimap.html"],
    "your_own_method": ["learned:", "automatic:", "mine: NRMSE"],
    "train_on_tpu": ["CpuDevice(id=1)", "samples a step", "goes on from step 1", "network: NRMSE"],
}


def sources(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return [("".join(cell["source"]), cell) for cell in cells]


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_has_its_badge_sizes_and_pictures(name):
    cells = sources(name)
    assert "colab-badge.svg" in cells[0][0]
    first = next(text for text, cell in cells if cell["cell_type"] == "code")
    for variable in SMALL[name]:
        assert re.search(rf"^{variable} = ", first, re.MULTILINE)
    shown = [output for _, cell in cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not any(output["output_type"] == "error" for output in shown)


def test_the_tpu_notebook_leaves_jax_alone():
    code = "\n".join(text for text, cell in sources("train_on_tpu") if cell["cell_type"] == "code")
    assert not re.search(r"install[^\n]*\bjax|setup_tpu|-U\b|--upgrade|jax\[", code)
    assert "print(jax.devices())" in code and '"-c", "held.txt"' in code


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_draws_head_and_noise_from_keys_of_their_own(name):
    code = "\n".join(text for text, cell in sources(name) if cell["cell_type"] == "code")
    assert code.count("jax.random.split(jax.random.key(") == code.count("jax.random.key(") == 1
    assert "random_chi(key," in code and "random.normal(noise_key," in code


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Jupyter's own
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_at_a_small_size(name, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    # two devices, so that the training runs in pmap
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for variable, value in SMALL[name].items():
        first.source = re.sub(rf"^{variable} = .*$", f"{variable} = {value!r}", first.source, flags=re.MULTILINE)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    for words in SAID[name]:
        assert words in printed
