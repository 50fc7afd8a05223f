"""Files in and out: whole or not at all.

- `embedded`: volumes as bytes for a page
- `aside`: write beside the target, then rename
- `bids`: the gradient-echo scans of a BIDS dataset, and their sidecars
- `kspace`: multi-coil k-space as .npy
- `lock`: a folder held by one process
- `nifti`: volumes with their affine
- `sidecar`: params.json in, the map's JSON out
- `weights`: networks as safetensors, each with its card inside
"""
