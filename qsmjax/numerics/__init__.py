"""Arrays only: nothing here knows of MRI.

- `arrays`: array types, and the checks that public functions make first
- `kspace`: frequency grids, fast FFT sizes, padding, the product in k-space
- `box`: volumes cut to a mask's box, and put back
- `resample`: another number of voxels in the same band
- `operators`: gradient, divergence and Laplacian, with their symbols in k-space
- `quantiles`: quantiles over a mask
- `spheres`: spherical means, and erosion by them
- `smooth`: Gaussian smoothing
- `windows`: averages over a few voxels, and how similar two volumes are there
- `solvers`: conjugate gradients, fixed-point loops with a tolerance, proximal maps
"""
