"""A trained network as an inversion: FieldMap -> Solution, on any grid.

- `card`: what a network's file must say of it
- `regrid`: to the grid and the B0 direction that a network was trained for, and back
- `tiles`: a volume in overlapping tiles, where memory does not hold it whole
- `network`: weights and card from a file or a work folder to an inversion
"""
