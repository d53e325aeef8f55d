"""Encoder and decoder as modules from tensors to tensors, for formats without distributions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import mode

Part = Literal["encoder", "decoder"]
PARTS: tuple[Part, ...] = ("encoder", "decoder")


class EncoderGraph(nn.Module):
    """The encoder: x [batch, *data.shape] and, for a conditional model, y [batch].

    Outputs: z [batch, *latent_shape], the posterior's mode; for a Gaussian posterior also its
    standard deviation `scale`, in the same shape.
    """

    def __init__(self, model: BaseVAE) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            posterior = model.encode(*example_inputs(model, "encoder", 2))
        base = posterior.base_dist if isinstance(posterior, Independent) else None
        self.gaussian = isinstance(base, Normal)
        self.output_names = ("z", "scale") if self.gaussian else ("z",)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        posterior = self.model.encode(x, y)
        z = mode(posterior)
        return (z, posterior.stddev) if self.gaussian else (z,)


class DecoderGraph(nn.Module):
    """The decoder: z [batch, *latent_shape] and y [batch] to the mean x [batch, *data.shape]."""

    output_names = ("x",)

    def __init__(self, model: BaseVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        return (self.model.decode(z, y).mean,)


Graph = EncoderGraph | DecoderGraph


def make_graph(model: BaseVAE, part: Part) -> Graph:
    return EncoderGraph(model) if part == "encoder" else DecoderGraph(model)


def example_inputs(model: BaseVAE, part: Part, n: int) -> tuple[Tensor, ...]:
    """Inputs for a batch of n, the same at each call, on the model's device.

    An exported program takes exactly the inputs that it was traced with: y only if the model is
    conditional.
    """
    generator = torch.Generator().manual_seed(n)
    if part == "encoder":
        inputs = [torch.rand(n, *model.data.shape, generator=generator)]
    else:
        inputs = [torch.randn(n, *model.latent_shape, generator=generator)]
    if model.conditional:
        inputs.append(torch.arange(n) % max(1, len(model.data.class_names)))
    return tuple(tensor.to(model.device) for tensor in inputs)
