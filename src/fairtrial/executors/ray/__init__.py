"""Runs trials on a Ray cluster: as tasks, or many side by side on each of its GPUs."""

from fairtrial.executors.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
