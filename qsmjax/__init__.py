"""Quantitative susceptibility mapping in JAX: from the field of a gradient-echo scan to tissue susceptibility."""
