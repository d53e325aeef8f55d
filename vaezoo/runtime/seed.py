"""Seeds of random numbers, and contexts that restore modes and generators afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

NumberT = TypeVar("NumberT", int, Tensor)


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


def mix_bits(x: NumberT) -> NumberT:
    """Hash whole numbers to 32 well-mixed bits, on any device (multipliers: C. Wellons)."""
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def derive_seed(seed: int, rank: int, step: int) -> int:
    """The seed of what a rank draws in a step; it differs in every rank and step."""
    return mix_bits(mix_bits(mix_bits(seed) + rank) + step)
