"""What a study says: sections, arms, and the TOML around them."""

from fairtrial.spec.evidence import ALL_OTHERS, Claim, Evidence, Noise, Target
from fairtrial.spec.measures import Measure, better, find_measure
from fairtrial.spec.metrics import METRICS
from fairtrial.spec.sections import (
    BUILT_IN,
    DATA_SIZES,
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Data,
    DataSize,
    Linear,
    Model,
    Optimizer,
    Schedule,
    Section,
    Settings,
    Step,
    Training,
)
from fairtrial.spec.study import FORMAT, Arm, Study, content, digest
from fairtrial.spec.tables import override, parse_toml

__all__ = [
    "ALL_OTHERS",
    "BUILT_IN",
    "DATA_SIZES",
    "FORMAT",
    "METRICS",
    "SGD",
    "Adam",
    "AdamW",
    "Arm",
    "Claim",
    "Constant",
    "Cosine",
    "Data",
    "DataSize",
    "Evidence",
    "Linear",
    "Measure",
    "Model",
    "Noise",
    "Optimizer",
    "Schedule",
    "Section",
    "Settings",
    "Step",
    "Study",
    "Target",
    "Training",
    "better",
    "content",
    "digest",
    "find_measure",
    "override",
    "parse_toml",
]
