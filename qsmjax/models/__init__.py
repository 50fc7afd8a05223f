"""Networks: Flax modules, and what they are made of.

- `build`: `build(config)`, a network by its name
- `scaling`: normalisation of what a network sees, and `predict` in ppm
- `qsmnet`: QSMnet, the 3-D U-Net of Yoon et al. (2018)
- `unrolled`: the learned inversion's physics: where it begins, what its network sees, how far the data let it go
- `correction`: the learned inversion's network
- `layers`: convolution and transposed convolution with weights
- `convolution`: their arithmetic, in the form that is fast on each platform
"""
