"""Noise that an example gets whichever process it is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from vaezoo.distributed import all_gather, local_chunk, world_size


class SameNoise(TorchDispatchMode):
    """Inside, every draw follows from its number, and is the one that one process would make.

    A process that has `count` examples of the batch takes its part of what is drawn for all of
    them; an axis as long as that, or failing one a multiple of it, is taken for the batch's (of
    folded samples, [samples, count]). What has no such axis is drawn alike in all processes.
    So that no other axis is meant, let `count` be a prime that is no size of the model's.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.draws = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self.draws += 1
        torch.manual_seed(self.draws)
        if world_size() == 1:
            return func(*args, **kwargs)
        drawn = func(*map(self._of_all, args), **kwargs)
        ours = tree_map_only(Tensor, self._ours, drawn)
        if func.overloadpacket.__name__.endswith("_"):
            return args[0].copy_(ours)
        return ours

    def _of_all(self, argument: Any) -> Any:
        """A size, or a parameter of a distribution, as one process would have it."""
        if isinstance(argument, Tensor):
            return self._along(argument, all_gather)
        if isinstance(argument, (list, tuple)) and all(isinstance(n, int) for n in argument):
            axis = self._axis(argument, self.count)
            return [n * world_size() if i == axis else n for i, n in enumerate(argument)]
        return argument

    def _ours(self, drawn: Tensor) -> Tensor:
        return self._along(drawn, local_chunk)

    def _along(self, values: Tensor, change: Any) -> Tensor:
        count = self.count * (world_size() if change is local_chunk else 1)
        axis = self._axis(values.shape, count)
        if axis is None:
            return values
        batch_first = values.unflatten(axis, (-1, count)).movedim(axis + 1, 0)
        whole = change(batch_first).movedim(0, axis + 1).flatten(axis, axis + 1)
        return whole.contiguous()  # what is drawn like it is drawn in the order of its memory

    def _axis(self, shape: Sequence[int], count: int) -> int | None:
        for axis, size in enumerate(shape):
            if size == count:
                return axis
        return next((i for i, size in enumerate(shape) if size and size % count == 0), None)
