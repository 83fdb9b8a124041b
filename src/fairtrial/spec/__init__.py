"""What a study says: sections, arms, and the TOML around them."""

from fairtrial.spec.sections import (
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

__all__ = [
    "DATA_SIZES",
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Data",
    "DataSize",
    "Linear",
    "Model",
    "Optimizer",
    "Schedule",
    "Section",
    "Settings",
    "Step",
    "Training",
]
