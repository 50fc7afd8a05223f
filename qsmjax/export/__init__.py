"""A network with all that it needs, as one ONNX graph that other tools run.

- `graph`: write a graph as arithmetic
- `fourier`: the transforms and kernels of a frame whose size is known only when the graph runs
- `physics`: the start and the look, as `models.unrolled` has them
- `correction`: the U-Net
- `model`: the whole, field in and map out
"""
