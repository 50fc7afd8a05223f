"""Documents say nothing that does not work: commands parse, blocks run, links lead somewhere, the README stays short.

What runs blocks or builds pages is slow: `python -m pytest -m slow tests/docs`.
"""

import argparse
import importlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from qsmjax.cli.main import COMMANDS, main
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.pipeline import BACKGROUNDS

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:\S*python3? (infer|train)\.py|(?:\S*/)?qsmjax (\w+))(?= )")
ELSEWHERE = ("pip install", "pytest", "-m venv", "mkdocs", "#SBATCH")
"""What .ci/run does itself, or what needs a cluster."""
GIVEN = """import numpy as np
mask = np.pad(np.ones((5, 6, 7)), 2)
field_ppm, affine = 0.01 * mask, np.eye(4)
"""
"""What the README's Python takes as given."""


def blocks(kind):
    """All blocks of a language, as (page, text), continued lines joined."""
    found = [(page, BLOCK.findall(page.read_text(encoding="utf-8"))) for page in PAGES]
    return [(page.name, text.replace("\\\n", " ")) for page, each in found for lang, text in each if lang == kind]


def commands():
    """Every command line of the project's own in the documents: in blocks and in tables."""
    lines = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocked = [line for kind, block in BLOCK.findall(text) if kind != "python" for line in block.splitlines()]
        quoted = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
        for line in blocked + quoted:
            for part in line.split("&&"):
                if match := COMMAND.search(part):
                    lines.append((page.name, part[match.start() :].strip()))
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize(("page", "line"), commands(), ids=str)
def test_a_command_parses(page, line):
    words = shlex.split(line.partition("  #")[0].partition("   ")[0], comments=True)
    name, given = (
        (words[1].removesuffix(".py"), words[2:])
        if words[0].endswith(("python", "python3"))
        else words[1:2] + [words[2:]]
    )
    assert name in COMMANDS, f"{page}: {line}"
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(f"qsmjax.cli.{name}").add_arguments(parser)
    # names in capitals stand for the reader's own
    given = [{"N": "1", "M": "0", "SEED": "1"}.get(word, word) for word in given if word not in ("...", "[...]")]
    parser.parse_args(given)


def test_documents_are_linked_and_links_lead_somewhere():
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in [*PAGES, *(ROOT / "docs" / "api").glob("*.md")]:
        assert page.name == "README.md" or page.relative_to(ROOT / "docs").as_posix() in listed, f"{page} is in no menu"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_method_is_on_a_page_of_the_api():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    modules = {method.__module__ for methods in (BACKGROUNDS, INVERSIONS) for method in methods.values()}
    assert not [module for module in modules if f"::: {module}\n" not in pages + "\n"]


def test_the_readme_is_short_and_no_line_is_long():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The repository as a reader has it, its example at half the resolution."""
    place = tmp_path_factory.mktemp("clone")
    for name in ("examples", "benchmarks"):
        shutil.copytree(ROOT / name, place / name)
    for name in ("infer.py", "train.py"):
        shutil.copy(ROOT / name, place)
    for path in (place / "examples").glob("*.nii.gz"):
        volume = load_volume(path)
        affine = volume.affine @ np.diag([2.0, 2, 2, 1])
        save_volume(path, volume.data[::2, ::2, ::2], new_volume(volume.data[::2, ::2, ::2], affine))
    (place / ".venv").symlink_to(pathlib.Path(sys.prefix))
    # what a block of commands makes for one of Python, which may run elsewhere
    assert main(["export", str(place / "learned.onnx"), "--quiet"]) == 0
    return place


@pytest.mark.slow
@pytest.mark.parametrize(("page", "text"), blocks("bash"), ids=lambda text: text.split("\n")[0][:60])
def test_a_block_of_commands_runs(page, text, folder):
    if text.startswith("#!") or any(word in text for word in ("#SBATCH", "scheduler")):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        return
    kept = [part.strip() for line in text.splitlines() for part in line.split("&&")]
    kept = [part for part in kept if not any(word in part for word in ELSEWHERE)]
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(kept)],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{page}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(("page", "text"), blocks("python"), ids=lambda text: text.split("\n")[0][:60])
def test_a_block_of_python_runs(page, text, folder):
    if "dask_jobqueue" in text:  # needs a cluster
        compile(text, page, "exec")
        return
    text = GIVEN + text if page == "README.md" else text
    done = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{page}: {done.stderr}"


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs must be installed, the extra 'docs'")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "solve_tv" in (tmp_path / "api" / "inversion" / "index.html").read_text(encoding="utf-8")
    outside = re.compile(r"<(?:script|link|img)[^>]+(?:src|href)=\"?https?://")
    assert not outside.search((tmp_path / "index.html").read_text(encoding="utf-8"))
