"""What a study says: sections, arms, and the TOML around them."""

from fairtrial.spec.evidence import ALL_OTHERS, Claim, Evidence, JointClaim, Noise, Target
from fairtrial.spec.hashing import FORMAT, content, digest, same
from fairtrial.spec.measures import Measure, better
from fairtrial.spec.metrics import METRICS
from fairtrial.spec.overrides import flatten, override, parse_toml
from fairtrial.spec.sections import DataSettings, DataSize, ModelSettings, OptimizerSettings, ScheduleSettings
from fairtrial.spec.settings import BUILT_IN, LoopName, Settings
from fairtrial.spec.study import Arm, Origin, Study

__all__ = [
    "ALL_OTHERS",
    "BUILT_IN",
    "FORMAT",
    "METRICS",
    "Arm",
    "Claim",
    "DataSettings",
    "DataSize",
    "Evidence",
    "JointClaim",
    "LoopName",
    "Measure",
    "ModelSettings",
    "Noise",
    "OptimizerSettings",
    "Origin",
    "ScheduleSettings",
    "Settings",
    "Study",
    "Target",
    "better",
    "content",
    "digest",
    "flatten",
    "override",
    "parse_toml",
    "same",
]
