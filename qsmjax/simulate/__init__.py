"""Anatomy to scans: heads whose truth is known.

In the training step, jit and vmap safe:
- `procedural`: `random_chi`, heads drawn from nothing
- `augment`: rotations with respect to B0, QSMnet+'s scaling and sign, noise, and the field they make

From label maps, on the host:
- `tissue`: susceptibility, signal and R2* of each tissue; which numbers a label map gives it
- `anatomy`: a label map to a head, with texture, nuclei, `veins` and `lesions`, on no grid yet
- `drawn_labels`: a label map out of nothing
- `posture`: a head turned in the scanner
- `sample`: a head on any grid
- `background`: air, bone and neck, the shim, the phase of the coils
- `coils`: receive coils, and the undersampled k-space that they see
- `scan`: `grid_around` a head, and its `scan`: truth, fields and echoes in one band
"""
