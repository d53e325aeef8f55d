"""Limit the memory of modules while they are built."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

MOST_TENSORS = 20_000
"""Parameters and buffers of one model: a hundred layers have a few hundred."""


class TooLargeError(MemoryError):
    """Modules would need more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"modules of more than {limit:,} bytes")
        self.limit = limit


@contextmanager
def limit_memory(limit: int) -> Iterator[None]:
    """Raise TooLargeError as soon as modules built inside need more than `limit` bytes together.

    It is raised when a parameter or a buffer is registered, before its memory is written. Only
    modules of this thread count.
    """
    here = threading.get_ident()
    held = [0, 0]

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None or threading.get_ident() != here:
            return
        held[0] += tensor.numel() * tensor.element_size()
        held[1] += 1
        if held[0] > limit or held[1] > MOST_TENSORS:
            raise TooLargeError(limit)

    with (
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
    ):
        yield


@contextmanager
def meta_device() -> Iterator[None]:
    """Build modules on the meta device, without memory and without changing the random state."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        yield
