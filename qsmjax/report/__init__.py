"""Pictures: the only room that imports matplotlib.

- `figures`: `three_plane` views of volumes, and the `learning_curve` of a training run
- `simulation`: a simulated scan, its volumes beside each other
- `paragraph`: the methods paragraph out of a map's sidecar
- `orientation`: volumes turned so that they are shown right, front and top up, whatever their affine
"""
