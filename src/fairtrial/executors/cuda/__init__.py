"""Runs many trials side by side on each GPU of this machine."""

from fairtrial.executors.cuda.executor import CudaExecutor

__all__ = ["CudaExecutor"]
