"""From multi-coil k-space to images.

- `sampling`: which samples an undersampled k-space holds: lattice and calibration region
- `grappa`: missing samples from their neighbours, over two accelerated axes
- `espirit`: coil sensitivities from the calibration region
- `combine`: k-space to images, noise whitening, coils to one image
- `reconstruct`: all of it, one image an echo

Coil images without k-space are combined by `qsmjax.phase.offsets`, which needs unwrapping.
"""
