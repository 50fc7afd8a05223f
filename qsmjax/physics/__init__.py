"""What MRI adds to the numerics.

- `units`: gamma, ppm, Hz, rad, and the sign
- `geometry`: voxel size and B0 direction of a grid, from an affine
- `dipole`: chi to field, and its adjoint
- `signal`: field, magnitude and R2* to complex echoes
- `field_map`: `FieldMap`, the noun that walks through every stage
- `axes`: the order and senses of a grid's axes, against the world's
"""
