"""What tissue is made of: susceptibility, signal at TE = 0 and R2* of each class.

Susceptibilities are in ppm relative to CSF, R2* in 1/s at 3 T. Iron in the basal ganglia grows with age:

    iron(t) = plateau (1 - exp(-rate t)) + start

The means are set by hand in the order and sign that the references report; they are not read off their tables.

References:
  Hallgren & Sourander, J. Neurochem. 3:41 (1958), doi:10.1111/j.1471-4159.1958.tb12607.x (iron against age).
  Langkammer et al., NeuroImage 62:1593 (2012), doi:10.1016/j.neuroimage.2012.05.049 (chi against iron).
  Deistung et al., NeuroImage 65:299 (2013), doi:10.1016/j.neuroimage.2012.09.055 (chi at 7 T).
  Li et al., Hum. Brain Mapp. 35:2698 (2014), doi:10.1002/hbm.22360 (chi over the lifespan).
  Peters et al., Magn. Reson. Imaging 25:748 (2007), doi:10.1016/j.mri.2007.02.014 (T2* at 1.5, 3 and 7 T).
"""

from typing import NamedTuple


class Tissue(NamedTuple):
    """One tissue class of an adult.

    Attributes:
      chi: mean susceptibility [ppm relative to CSF].
      spread: standard deviation of that mean between subjects [ppm].
      texture: standard deviation within the tissue [ppm].
      m0: signal at TE = 0, relative to CSF.
      r2s: R2* at 3 T [1/s].
    """

    chi: float
    spread: float
    texture: float
    m0: float
    r2s: float


TISSUES = {
    "csf": Tissue(0.0, 0.001, 0.001, 1.0, 3.0),
    "ventricle": Tissue(0.0, 0.001, 0.001, 1.0, 3.0),
    "white": Tissue(-0.030, 0.008, 0.010, 0.70, 19.0),
    "callosum": Tissue(-0.042, 0.008, 0.008, 0.70, 20.0),
    "cortex": Tissue(0.016, 0.008, 0.010, 0.82, 15.5),
    "cerebellar_white": Tissue(-0.020, 0.008, 0.010, 0.70, 19.0),
    "cerebellar_cortex": Tissue(0.012, 0.007, 0.010, 0.82, 16.0),
    "thalamus": Tissue(0.010, 0.012, 0.015, 0.76, 20.0),
    "caudate": Tissue(0.058, 0.012, 0.012, 0.80, 24.0),
    "putamen": Tissue(0.065, 0.020, 0.018, 0.79, 29.0),
    "pallidum": Tissue(0.150, 0.025, 0.025, 0.74, 42.0),
    "accumbens": Tissue(0.035, 0.012, 0.010, 0.80, 22.0),
    "hippocampus": Tissue(0.005, 0.008, 0.010, 0.82, 16.0),
    "amygdala": Tissue(0.000, 0.008, 0.008, 0.82, 16.0),
    "brainstem": Tissue(-0.008, 0.008, 0.010, 0.72, 20.0),
    "diencephalon": Tissue(0.010, 0.010, 0.015, 0.74, 21.0),
    "red_nucleus": Tissue(0.105, 0.025, 0.018, 0.74, 36.0),
    "substantia_nigra": Tissue(0.130, 0.025, 0.022, 0.74, 38.0),
    "dentate": Tissue(0.100, 0.020, 0.018, 0.78, 33.0),
    "choroid": Tissue(0.02, 0.05, 0.02, 0.9, 10.0),
    "artery": Tissue(-0.010, 0.005, 0.000, 0.9, 8.0),
    "vein": Tissue(0.300, 0.060, 0.010, 0.8, 45.0),
    "white_lesion": Tissue(0.008, 0.015, 0.010, 0.85, 15.0),
    "optic": Tissue(-0.030, 0.008, 0.005, 0.70, 20.0),
}
"""Tissues within the brain's mask."""

OUTSIDE = {
    "air": Tissue(9.40, 0.0, 0.0, 0.0, 0.0),
    "bone": Tissue(-2.10, 0.2, 0.1, 0.05, 400.0),
    "marrow": Tissue(0.40, 0.2, 0.1, 0.60, 60.0),
    "muscle": Tissue(0.0, 0.03, 0.02, 0.60, 35.0),
    "skin": Tissue(0.20, 0.1, 0.05, 0.60, 45.0),
    "mucosa": Tissue(0.0, 0.02, 0.02, 0.70, 40.0),
    "eye": Tissue(0.0, 0.01, 0.0, 0.95, 4.0),
    "cord": Tissue(-0.010, 0.005, 0.0, 0.72, 20.0),
}
"""Sources of the background field. Air is +0.36 ppm and water -9.04 ppm relative to vacuum, so air is 9.4 above CSF."""

IRON = {"pallidum": (21.41, 0.09, 0.37), "putamen": (14.62, 0.04, 0.46), "caudate": (9.66, 0.05, 0.33)}
"""Plateau, rate [1/year] and start of the iron concentration [mg/100 g], as measured by Hallgren & Sourander."""

FREESURFER = {
    "csf": (24,),
    "ventricle": (4, 5, 14, 15, 43, 44, 72),
    "white": (2, 41, 136, 137, 163, 164),
    "cortex": (3, 42),
    "cerebellar_white": (7, 46),
    "cerebellar_cortex": (8, 47),
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "brainstem": (16,),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "accumbens": (26, 58),
    "diencephalon": (28, 60),
    "white_lesion": (25, 57),
    "vein": (30, 62, 514),
    "artery": (502,),
    "optic": (85, 530),
    "callosum": (251, 252, 253, 254, 255),
    "choroid": (31, 63),
    "eye": (506,),
    "muscle": (507, 508),
    "mucosa": (509,),
    "skin": (511,),
    "cord": (512,),
    "bone": (515,),
    "marrow": (516,),
    "air": (0,),
}
"""Tissue of each number: FreeSurfer's in the brain, SynthSeg's around it; other atlases need another such table."""
