"""Arrays only: nothing here knows of MRI.

- `arrays`: array types, and the checks that public functions make first
- `kspace`: frequency grids, fast FFT sizes, padding, the product in k-space
- `operators`: gradient, divergence and Laplacian, with their symbols in k-space
- `smooth`: Gaussian smoothing
- `solvers`: conjugate gradients, fixed-point loops with a tolerance, proximal maps
"""
