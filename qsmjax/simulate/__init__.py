"""Anatomy to scans: heads whose truth is known.

- `procedural`: `random_chi`, heads drawn inside the compiled training step
- `augment`: rotations with respect to B0, QSMnet+'s scaling and sign, noise, and the field they make
- `tissue`: susceptibility, signal and R2* of each tissue
"""
