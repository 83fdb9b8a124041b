"""Optimizers around another one."""

import torch
from pytorch_optimizer import SAM


def sam(params, lr=0.05, momentum=0.9, rho=0.05):
    """Sharpness-aware minimization around SGD (Foret et al. 2021)."""
    return SAM(params, torch.optim.SGD, rho=rho, lr=lr, momentum=momentum)
