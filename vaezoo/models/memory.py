"""How large modules become while they are built, known before they are filled."""

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
    """Modules that would hold more than they may. limit: how many bytes that is."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"modules of more than {limit:,} bytes")
        self.limit = limit


@contextmanager
def limit_memory(limit: int) -> Iterator[None]:
    """TooLargeError as soon as modules built inside hold more than `limit` bytes together.

    It comes when a parameter or a buffer is registered. On the meta device nothing has been
    allocated by then; elsewhere layers have asked for the memory and not yet written to it. Only
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

    handles = [
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def meta_device() -> Iterator[None]:
    """Modules built inside have shapes and no memory, and draw no random numbers of ours."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        yield
