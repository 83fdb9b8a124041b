"""Runs trials as tasks of a Ray cluster."""

from fairtrial.executors.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
