"""Checks a study's training loop: trains a little of each arm, and says whether its results could be trusted."""

from fairtrial.checking.findings import Finding, StudyCheck
from fairtrial.checking.running import check

__all__ = ["Finding", "StudyCheck", "check"]
