"""One line shows volumes in a notebook: what the widget is given is what was passed."""

import builtins
import gzip

import nibabel as nib
import numpy as np
import pytest

from qsmjax.report.notebook import view

AFFINE = np.diag([2.0, 2, 3, 1])


def test_the_widget_holds_the_volumes():
    pytest.importorskip("ipyniivue", reason="ipyniivue must be installed, the extra 'notebook'")
    chi = np.random.default_rng(0).normal(size=(6, 7, 8)) * 0.05
    widget = view({"chi": chi, "mask": chi > 0}, AFFINE, window=(-0.2, 0.2))
    below, above = widget.volumes
    image = nib.Nifti1Image.from_bytes(gzip.decompress(below.data))
    np.testing.assert_allclose(image.get_fdata(), chi, atol=np.abs(chi).max() / 1999)
    np.testing.assert_allclose(image.affine, AFFINE)
    assert (below.cal_min, below.cal_max, below.name, above.opacity) == (-0.2, 0.2, "chi.nii.gz", 0.5)
    assert view(chi).volumes[0].colormap == "gray"
    with pytest.raises(ValueError, match="axes x, y, z alone"):
        view(chi[None])


def test_without_the_widget_the_cure_is_named(monkeypatch):
    real = builtins.__import__
    refuse = lambda name, *rest: (_ for _ in ()).throw(ImportError(name)) if name == "ipyniivue" else real(name, *rest)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"qsmjax\[notebook\]"):
        view(np.zeros((2, 2, 2)))
