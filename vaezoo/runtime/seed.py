"""Look at a model and leave no trace: its modes and everyone's generators stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and afterwards in the mode that it was in."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Noise that follows from `seed`; the generators of the CPU and of `device` are put back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
