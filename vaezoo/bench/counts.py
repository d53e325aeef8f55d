"""FLOPs and memory traffic of a step, counted by torch's dispatch modes."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

_ARITHMETIC = ("mm", "conv", "linear", "cdist", "attention", "einsum", "fft", "cholesky", "solve")
"""Parts of the names of operations with much arithmetic: `missed` lists those without a count."""


@dataclass(frozen=True)
class Counts:
    """The counts of one step.

    flops: multiplications and additions of matrix products and convolutions, forward and backward.
    bytes: what every operation reads and writes, each tensor once, without fusion or caches: an
        upper bound of an eager step's traffic.
    operations: those that compute or copy, so not views: on a GPU each is one kernel or more.
    missed: operations with arithmetic that `flops` leaves out, and how often they were called.
    """

    flops: int
    bytes: int
    operations: int
    missed: dict[str, int]


def count(step: Callable[[], object]) -> Counts:
    """Run a step, on meta tensors or on real ones, and count."""
    traffic = _Traffic()
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward}
    )
    with warnings.catch_warnings(), counter as flops, traffic:
        warnings.simplefilter("ignore")
        step()
    return Counts(flops.get_total_flops(), traffic.bytes, traffic.operations, dict(traffic.missed))


def _convolution_backward(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *args: Any,
    **_: Any,
) -> int:
    """The FLOPs of the forward pass for each of the two gradients that are needed.

    torch's own formula forgets the groups in the gradient of the weight.
    args: bias, stride, padding, dilation, transposed, output_padding, groups, output_mask.
    """
    transposed, output_mask = args[4], args[7]
    positions = x_shape if transposed else grad_shape
    # Each position of the smaller side meets one kernel, with the channels of one group.
    once = 2 * positions[0] * math.prod(positions[2:]) * math.prod(weight_shape)
    return once * (output_mask[0] + output_mask[1])


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of each operation's tensors, and counts the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.operations = 0
        self.missed: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if any(part in name for part in _ARITHMETIC) and func.overloadpacket not in flop_registry:
            self.missed[name] += 1
        # A view of an input moves no data.
        aliases = [returned.alias_info for returned in func._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):
            read = {id(t): t.nbytes for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            written = sum(t.nbytes for t in tree_leaves(result) if isinstance(t, Tensor))
            self.bytes += sum(read.values()) + written
            self.operations += "empty" not in name and name != "_unsafe_view"
        return result
