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
    fused_bytes: what is left of them if everything were fused into the matrix products and
        convolutions: each result of these written once and read once, what they read from before
        the step (weights, images), and what is updated in place (weights, averages of the
        optimizer), once read and once written.
    operations: those that compute or copy, so not views: on a GPU each is one kernel or more.
    missed: operations with arithmetic that `flops` leaves out, and how often they were called.
    """

    flops: int
    bytes: int
    fused_bytes: int
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
    return Counts(
        flops.get_total_flops(),
        traffic.bytes,
        traffic.fused_bytes,
        traffic.operations,
        dict(traffic.missed),
    )


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
        self.bytes = self.operations = self._products = 0
        self.missed: Counter[str] = Counter()
        self._made: set[int] = set()
        """The storages that the step made: others are from before it."""
        self._updated: dict[int, int] = {}
        """The bytes of those from before it that it writes."""

    @property
    def fused_bytes(self) -> int:
        return self._products + 2 * sum(self._updated.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name, is_product = func.overloadpacket.__name__, func.overloadpacket in flop_registry
        if any(part in name for part in _ARITHMETIC) and not is_product:
            self.missed[name] += 1
        # A view of an input moves no data.
        aliases = [returned.alias_info for returned in func._schema.returns]
        if any(alias is not None and not alias.is_write for alias in aliases):
            return result
        read = {id(t): t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        written = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        size = sum(t.nbytes for t in written)
        self.bytes += sum(t.nbytes for t in read.values()) + size
        self.operations += "empty" not in name and name != "_unsafe_view"
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                changed = [t for t in tree_leaves(value) if isinstance(t, Tensor)]
                self._updated |= {_storage(t): t.nbytes for t in changed if not self._is_made(t)}
        if is_product:
            self._products += 2 * size
            self._products += sum(t.nbytes for t in read.values() if not self._is_made(t))
        before = {_storage(t) for t in read.values()}
        self._made |= {_storage(t) for t in written} - before
        return result

    def _is_made(self, x: Tensor) -> bool:
        return _storage(x) in self._made


def _storage(x: Tensor) -> int:
    """What identifies the memory of a tensor, also of a meta tensor."""
    return x.untyped_storage()._cdata
