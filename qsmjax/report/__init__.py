"""Pictures: the only room that imports matplotlib.

- `figures`: `three_plane` views of volumes, and the `learning_curve` of a training run
- `simulation`: a simulated scan, its volumes beside each other
- `page`: the page of one map: figures, viewer, checks, regions, every parameter
- `training`: the page of a training run
- `document`, `viewer`: the parts of a page; NiiVue with volumes in the page
- `notebook`: a viewer in a notebook, in one line
- `expected`: what regions and histograms of healthy brains are like
- `histogram`: of a map
- `paragraph`: the methods paragraph out of a map's sidecar
- `orientation`: volumes turned so that they are shown right, front and top up, whatever their affine
"""
