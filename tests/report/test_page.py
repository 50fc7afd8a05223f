"""The page of a map: all of it in one file, nothing of it from outside, and no name in it is ever code."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from qsmjax.cli.main import run_command
from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.report import document, expected
from qsmjax.report.checks import map_warnings
from qsmjax.report.page import MapFacts, map_page
from qsmjax.simulate.tissue import FREESURFER, TISSUES

SHAPE = (24, 26, 22)
AFFINE = np.diag([4.5, 4.5, 5, 1])
EVIL = "<script>alert(1)</script>$\\frac$&\"'"


class Reader(HTMLParser):
    """Collects the elements of a page, and the text of those that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.inside = [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def head():
    """A ball of white matter with a shell of cortex, two nuclei and a ventricle: labels, mask, chi, field."""
    points = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    radius = np.sqrt(sum((p / (n / 2 - 2)) ** 2 for p, n in zip(points, SHAPE)))
    labels = np.where(radius < 1, 3, 0)
    labels[radius < 0.8] = 2
    for number, place in ((12, (5, 0, 0)), (13, (-5, 0, 0)), (4, (0, 5, 0))):
        labels[sum((p - c) ** 2 for p, c in zip(points, place)) < 6] = number
    chi = np.zeros(SHAPE)
    for name in ("cortex", "white", "putamen", "pallidum", "ventricle"):
        chi[np.isin(labels, FREESURFER[name])] = TISSUES[name].chi
    chi[labels == 0] = 0
    field = np.asarray(forward_field(chi, geometry_from_affine(AFFINE, SHAPE)))
    return labels, labels > 0, chi, np.where(labels > 0, field, 0)


def facts(head, sign=1.0, **changes):
    _, mask, chi, field = head
    local = field_map(sign * field, mask, geometry_from_affine(AFFINE, SHAPE), noise=1e-3)
    sidecar = {"Method": "tkd", "Parameters": {EVIL: EVIL}, "Warnings": [], "MethodsParagraph": f"So: {EVIL}"}
    given = {"local": local, "chi": sign * chi, "inverted": sign * chi, "affine": AFFINE, "sidecar": sidecar}
    return MapFacts(**(given | changes))


def test_the_page_holds_all_and_loads_nothing(head, tmp_path):
    labels, mask, _, _ = head
    path = tmp_path / "page.html"
    sidecar = facts(head).sidecar | {"Warnings": ["not converged: x"]}
    map_page(path, facts(head, std=np.where(mask, 0.01, 0), labels=labels, sidecar=sidecar), title=EVIL)
    text = path.read_text(encoding="utf-8")
    page = Reader(text)
    assert "not converged: x" in page.text
    outside = [a for _, a in page.elements if not a.get("src", "data:").startswith("data:") or "href" in a]
    assert not outside and "<link" not in text and document.POLICY in text
    # the layers, NiiVue and the viewer; no script that a name brought
    assert [tag for tag, _ in page.elements].count("script") == 3
    assert page.text.count(EVIL) == 3  # both titles and the methods paragraph; the parameter stands there as JSON
    assert json.dumps({EVIL: EVIL}) in page.text
    for title in ("Look around", "Three planes", "Is it as expected?", "What the map leaves", "Histogram", "Methods"):
        assert title in page.text
    for layer in ("susceptibility", "uncertainty", "local field", "field that the map leaves", "noise", "mask"):
        assert any(tag == "img" and a["alt"].startswith(layer) for tag, a in page.elements), layer
    layers = json.loads(re.search(r'id="layers">(.*?)</script>', text, re.S)[1])
    assert [layer["title"] for layer in layers][:2] == ["susceptibility", "uncertainty (standard deviation)"]


def test_regions_are_as_expected_and_a_turned_sign_is_told(head):
    labels, mask, chi, _ = head
    verdicts = {row["region"]: row.get("verdict") for row in expected.region_rows(chi, labels, mask)}
    assert verdicts == {"white": None, **dict.fromkeys(("cortex", "putamen", "pallidum", "ventricle"), "as expected")}
    turned = {row["region"]: row.get("verdict") for row in expected.region_rows(-chi, labels, mask)}
    assert turned["putamen"] == turned["pallidum"] == "low"
    # a reference moves all regions alike
    moved = {row["region"]: row.get("verdict") for row in expected.region_rows(chi + 0.2, labels, mask)}
    assert moved == verdicts


def test_what_is_unusual_is_said(head):
    labels = head[0]

    def told(**changes):
        made = facts(head, **changes)
        given = {"total": made.total, "labels": made.labels, "one_step": made.one_step}
        return " ".join(map_warnings(made.local, made.inverted, **given))

    usual = told(labels=labels)
    for words in ("sign", "touches", "explains", "background field is left"):
        assert words not in usual
    assert "deep grey matter lies" in told(sign=-1.0, labels=labels)
    assert "reaches further down than up" in told(sign=-1.0)
    assert "explains" in told(inverted=np.zeros(SHAPE))
    assert "look at --units" in told(inverted=1000 * head[2]) and "spans" not in told()
    # a total field with nothing of what lies around the head in it
    assert "high-pass filtered" in told(total=facts(head).local)
    cut = field_map(head[3], None, geometry_from_affine(AFFINE, SHAPE))
    assert "touches the volume's border with 100" in told(local=cut)


def test_percentiles_tell_another_unit(head):
    _, mask, chi, _ = head
    in_ppb = {row["verdict"] for row in expected.percentile_rows(1000 * chi, mask)}
    assert in_ppb <= {"low", "high"}


def test_counts_are_whole_and_measurements_have_four_digits():
    row = {"a<b": "x<y", "count": 123456, "measured": 0.123456, "none": None}
    text = document.numbers([row])
    assert "<td>123456<td>0.1235<td>" in text and "a&lt;b" in text and "x&lt;y" in text


def test_a_script_cannot_end_its_element():
    with pytest.raises(ValueError, match="must not hold"):
        document.script("'</SCRIPT>'")
    assert "<" not in document.data("a", {"<": "</script>"})[len('<script type="application/json" id="a">') : -9]


def test_infer_writes_the_page_of_a_file_with_an_evil_name(head, tmp_path, capsys):
    labels, _, _, field = head
    name = "<script>alert(1)<!-- $x$"
    for what, data in ((name, field), ("labels", labels)):
        save_volume(tmp_path / f"{what}.nii", data, new_volume(data, AFFINE))
    words = [str(tmp_path / f"{name}.nii"), "--method", "tkd", "--report", "--labels", str(tmp_path / "labels.nii")]
    assert run_command("infer", words) == 0
    page = Reader((tmp_path / f"{name}_Chimap.html").read_text())
    assert f"{name}_Chimap.nii.gz" in page.text and "putamen" in page.text
    assert [tag for tag, _ in page.elements].count("script") == 3
    assert f"{name}_Chimap.html" in capsys.readouterr().out
    # files by name: the page does not say where they lay
    assert "labels.nii" in page.text and str(tmp_path) not in page.text


def test_labels_without_a_report_are_refused(head, tmp_path, capsys):
    path = tmp_path / "field.nii"
    save_volume(path, head[3], new_volume(head[3], AFFINE))
    assert run_command("infer", [str(path), "--labels", str(path)]) == 2
    assert "--labels must come with --report" in capsys.readouterr().err
