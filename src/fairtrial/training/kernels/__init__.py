"""Layers in C++ for the processor at hand, and the networks that are built of them."""
