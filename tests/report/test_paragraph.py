"""The methods paragraph says every algorithm, parameter, unit and reference that the sidecar knows."""

from qsmjax.report.paragraph import methods_paragraph

SIDECAR = {
    "GeneratedBy": {"Name": "qsmjax", "Version": "1.2.3", "jax": "0.9"},
    "VoxelSize": [0.8, 0.8, 1.2],
    "MagneticFieldStrength": 2.89,
    "EchoTime": [0.004, 0.0125],
    "B0Direction": [0, 0.342, 0.94],
    "Stages": {
        "background": {"Method": "vsharp", "Parameters": {"threshold": 0.05}, "References": ["10.1002/a"]},
        "inversion": {"Method": "tv", "Parameters": {"weight": 5.1e-5, "report": None}, "References": []},
    },
    "Reference": "mean",
    "ReferenceOffset": 0.00123,
}


def test_everything_known_is_said():
    text = methods_paragraph(SIDECAR)
    for words in (
        "qsmjax 1.2.3",
        "0.8 x 0.8 x 1.2 mm",
        "2.89 T",
        "echo times 4, 12.5 ms",
        "removed by vsharp (threshold 0.05) [doi:10.1002/a]",
        "inverted by tv (weight 5.1e-05)",
        "in ppm, referenced to the mean over the mask",
    ):
        assert words in text
    assert "report" not in text


def test_what_is_not_known_is_left_out():
    text = methods_paragraph(SIDECAR | {"MagneticFieldStrength": None, "EchoTime": []})
    assert " T," not in text and "echo times" not in text


def test_one_step_from_a_total_field_is_said_so():
    stages = {"inversion": SIDECAR["Stages"]["inversion"] | {"Method": "tfi"}}
    text = methods_paragraph(SIDECAR | {"InputKind": "totalfield", "Stages": stages})
    assert "The total field was inverted, sources around the mask with it, by tfi" in text and "local" not in text


def test_a_network_is_named_by_its_weights_and_what_it_was_trained_on():
    weights = {"sha256": "0123456789abcdef" * 4, "training_data": "24 subjects", "licence": "Apache-2.0"}
    inversion = {"Method": "learned", "Parameters": {"halo": 24}, "References": [], "Weights": weights}
    text = methods_paragraph(SIDECAR | {"Stages": {"inversion": inversion}})
    assert "by the network learned (halo 24, weights 0123456789ab, trained on 24 subjects)" in text
