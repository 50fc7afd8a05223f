"""From echoes to the total field.

- `scaling`: stored phase to radians by rule; real and imaginary parts to echoes
- `unwrap`: exact (path-following, made consistent over echoes) and Laplacian (differentiable)
- `echoes`: total field and its noise from one echo or many
- `signal_model`: the weighted fit of one voxel's echoes beneath it, differentiable
- `turns`: whole turns that only the smooth initial phase tells, beside bone and air
- `offsets`: the coils' phase offsets and the bipolar readout's phase, estimated and removed
- `host`: what is looked up there, under jax.grad too
- `mask`: from magnitude and from the phase's quality
"""
