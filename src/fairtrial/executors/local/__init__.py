"""Runs trials in worker processes on this machine."""

from fairtrial.executors.local.executor import LocalExecutor

__all__ = ["LocalExecutor"]
