"""Batch norm: over the examples of all processes, and with fixed running statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vaezoo.distributed import all_reduce, world_size


@contextmanager
def freeze_bn_stats(*networks: nn.Module) -> Iterator[None]:
    """Inside, batch norm of these networks normalises by the batch and updates no statistics.

    For a network that a training phase uses and does not train. Gradients flow. In evaluation mode
    nothing is different.
    """
    norms = [
        layer
        for network in networks
        for layer in network.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def sync_batch_norm(*modules: nn.Module) -> None:
    """Make torch's batch norm in these modules use the statistics of the whole batch.

    The layers stay the same objects: parameters, buffers, hooks and names in a state_dict.
    In evaluation, and with one process, they do what they did before.
    """
    for module in modules:
        for layer in module.modules():
            layer.__class__ = _SYNCED.get(type(layer), type(layer))


class _SyncBatchNorm(_BatchNorm):
    """Ioffe & Szegedy (2015, algorithm 1), with mean and variance over all processes.

    Every process must have the same number of examples. Each pass exchanges two sums.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training or self.running_mean is None) or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        dims = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = world_size() * x.numel() // x.shape[1]
        mean = all_reduce(x.sum(dims)) / count
        centered = x - mean.view(shape)
        variance = all_reduce(centered.square().sum(dims)) / count
        if self.training and self.track_running_stats:
            unbiased = variance.detach() * (count / max(1, count - 1))
            self._update_running_stats(mean.detach(), unbiased)
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            y = centered * (scale * self.weight).view(shape) + self.bias.view(shape)
        else:
            y = centered * scale.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight: float | Tensor | None = self.momentum
        if weight is None:  # a plain mean over all batches so far
            weight = 1 / self.num_batches_tracked.to(mean.dtype)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(variance.to(self.running_var.dtype), weight)


_SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    layer: type(f"Sync{layer.__name__}", (_SyncBatchNorm, layer), {})
    for layer in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
}
