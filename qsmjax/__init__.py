"""Quantitative susceptibility mapping in JAX: from the field of a gradient-echo scan to the susceptibility of the tissue."""
