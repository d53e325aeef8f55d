"""Batch norm over the examples of all processes (torch's own does that on GPUs alone)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vaezoo.distributed import all_reduce, world_size


def sync_batch_norm(*modules: nn.Module) -> None:
    """Make torch's batch norm in these modules go by the whole batch, wherever it goes by a batch.

    The layers stay the same objects: parameters, buffers, hooks and their names in a state_dict.
    In evaluation, and in one process, they do what they did before.
    """
    for module in modules:
        for part in module.modules():
            part.__class__ = _SHARED.get(type(part), type(part))


class _Shared(_BatchNorm):
    """Ioffe & Szegedy (2015, algorithm 1), mean and variance over the processes' examples.

    Every process must have as many. Two sums are exchanged forward, and two backward.
    """

    def forward(self, input: Tensor) -> Tensor:
        by_the_batch = self.training or self.running_mean is None
        if not by_the_batch or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        over = [axis for axis in range(x.dim()) if axis != 1]
        wide = [1, -1] + [1] * (x.dim() - 2)
        count = world_size() * x.numel() // x.shape[1]
        mean = all_reduce(x.sum(over)) / count
        centred = x - mean.view(wide)
        variance = all_reduce(centred.square().sum(over)) / count
        if self.training and self.track_running_stats:
            self._remember(mean.detach(), variance.detach() * (count / max(1, count - 1)))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            y = centred * (scale * self.weight).view(wide) + self.bias.view(wide)
        else:
            y = centred * scale.view(wide)
        return y.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        if self.momentum is None:  # a plain mean over all batches so far
            share: float | Tensor = 1 / self.num_batches_tracked.to(mean.dtype)
        else:
            share = self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Shared1d(_Shared, nn.BatchNorm1d):
    pass


class _Shared2d(_Shared, nn.BatchNorm2d):
    pass


class _Shared3d(_Shared, nn.BatchNorm3d):
    pass


_SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Shared1d,
    nn.BatchNorm2d: _Shared2d,
    nn.BatchNorm3d: _Shared3d,
}
