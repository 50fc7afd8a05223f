"""The viewer in a real browser: it draws, its controls act, and nothing is asked of the network.

Needs Chromium (Debian: `apt-get install chromium`); without it the page is only read, not opened.
"""

import hashlib
import importlib.resources
import shutil
import subprocess

import numpy as np
import pytest
from browser import browser, program

from qsmjax.report import document, figures, viewer
from qsmjax.report.viewer import Layer

SHAPE = (20, 24, 16)
AFFINE = np.diag([2.0, 2, 3, 1])
NIIVUE = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
CANVAS = "document.getElementById('viewer-canvas')"
BOX = f"(({{x, y, width, height}}) => ({{x, y, width, height}}))({CANVAS}.getBoundingClientRect())"
EVIL = "</script><script>document.body.dataset.hit = 1</script>"
needs_browser = pytest.mark.skipif(program() is None, reason="Chromium must be installed, to look at the page in it")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with a map that is half dark and half bright, and a mask."""
    volume = np.zeros(SHAPE)
    volume[2:10, 2:-2, 2:-2], volume[10:-2, 2:-2, 2:-2] = -0.05, 0.05
    layers = [Layer(EVIL, volume, (-0.1, 0.1)), Layer("mask", volume != 0, (0, 1), units="")]
    path = tmp_path_factory.mktemp("page") / "page.html"
    document.document(path, EVIL, [viewer.viewer(layers, AFFINE)], style=viewer.STYLE)
    return path


def test_niivue_is_the_published_file_with_its_licence():
    assets = importlib.resources.files("qsmjax.report") / "assets"
    assert hashlib.sha256((assets / "niivue.umd.js").read_bytes()).hexdigest() == NIIVUE
    licences = (assets / "niivue-licences.txt").read_text()
    assert "Copyright (c) 2021, Niivue" in licences and licences.count("=== ") > 10


@pytest.mark.skipif(shutil.which("node") is None, reason="node must be installed, to parse the script with it")
def test_the_script_parses():
    path = importlib.resources.files("qsmjax.report") / "assets" / "viewer.js"
    assert subprocess.run(["node", "--check", str(path)], check=False).returncode == 0


@needs_browser
def test_it_draws_its_controls_act_and_nothing_is_fetched(page, tmp_path):
    with browser(tmp_path / "profile") as opened:
        opened.open(page)
        opened.wait_for("document.body?.dataset.viewer == 'ready'")
        assert opened.value("document.title") == EVIL and opened.value("document.body.dataset.hit") is None

        def shows(*greys):
            """Whether each grey takes at least a twentieth of the canvas."""
            opened.screenshot(tmp_path / "shot.png", opened.value(BOX))
            found = figures.pixels(tmp_path / "shot.png")[..., 1].astype(int)
            return all((np.abs(found - grey) <= 3).mean() > 0.05 for grey in greys)

        def turn(name, setting, event):
            opened.value(
                f"(() => {{ const it = document.getElementById('{name}'); it.value = '{setting}'; "
                f"it.dispatchEvent(new Event('{event}')); }})()"
            )

        # -0.05, 0 and 0.05 in the window -0.1 to 0.1
        assert shows(64, 128, 191) and not shows(85)
        turn("viewer-high", 0.05, "input")
        assert shows(85, 170, 255) and not shows(64)
        assert "to 0.0500 ppm" in opened.value("document.getElementById('viewer-window').textContent")
        turn("viewer-volume", "layer1", "change")
        opened.wait_for("document.getElementById('viewer-high').max == 3")
        opened.wait_for("document.getElementById('viewer-window').textContent == '0.00 to 1.00 '")
        turn("viewer-planes", 0, "change")
        for kind in ("Pressed", "Released"):
            box = opened.value(BOX)
            where = {"x": box["x"] + box["width"] / 2 + 3, "y": box["y"] + box["height"] / 2}
            opened.call(
                "Input.dispatchMouseEvent", {"type": f"mouse{kind}", "button": "left", "clickCount": 1, **where}
            )
        opened.wait_for("document.getElementById('viewer-where').textContent.endsWith('mm: 1.00 ')")
        assert not opened.complaints
        assert all(url.startswith(("data:", "blob:")) or url == page.resolve().as_uri() for url in opened.requests)
        # the browser itself forbids what is outside
        assert opened.value("fetch('http://127.0.0.1:9/').then(() => 'loaded', () => 'refused')") == "refused"
        assert any("Content Security Policy" in complaint for complaint in opened.complaints)
