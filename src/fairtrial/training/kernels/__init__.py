"""Fast layers: C++ kernels, compiled for this machine's processor, and the modules that use them."""
