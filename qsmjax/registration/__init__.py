"""Head orientations brought to one.

- `rigid`: the rotation and translation between two volumes, by normalised correlation
- `resample`: volumes, fields and masks on another grid, and the direction of B0 there
- `field`: a field map with all that is known of it on another grid
- `flirt`: the same transforms as FSL's text files

A transform is a 4x4 matrix from the fixed volume's world to the moving volume's [mm], since resampling pulls: for every
voxel of the fixed grid it tells where to look in the moving volume.
"""
