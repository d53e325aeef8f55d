"""Encoder and decoder that are told a class beside what they work on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vaezoo import DataSpec
from vaezoo.nn.networks import make_decoder, make_encoder

from .plugin import ConditionalOptions


def one_hot(y: Tensor, classes: int) -> Tensor:
    """[batch, classes]: a one for the class, and zeros alone where it is unknown (-1)."""
    return (y[:, None] == torch.arange(classes, device=y.device)).float()


class LabelledEncoder(nn.Module):
    """Examples and one-hot labels to features: [batch, *shape], [batch, classes] -> [batch, n].

    The class's numbers stand beside the example's: as constant channels of an image, and as
    further values where the network takes vectors.
    """

    def __init__(self, options: ConditionalOptions, data: DataSpec, out_features: int) -> None:
        super().__init__()
        self.as_channels = "mlp" not in options.network
        first, *rest = data.shape if self.as_channels else (data.numel,)
        seen = replace(data, shape=(first + options.label_dim, *rest))
        self.embedding = nn.Linear(len(data.class_names), options.label_dim, bias=False)
        self.network = make_encoder(options, seen, out_features)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        numbers = self.embedding(label)
        if self.as_channels:
            numbers = numbers[:, :, None, None].expand(-1, -1, *x.shape[2:])
        else:
            x = x.flatten(1)
        return self.network(torch.cat([x, numbers], dim=1))


class LabelledDecoder(nn.Module):
    """Latents and one-hot labels to examples: [batch, n], [batch, classes] -> [batch, *shape]."""

    def __init__(self, options: ConditionalOptions, data: DataSpec) -> None:
        super().__init__()
        self.embedding = nn.Linear(len(data.class_names), options.label_dim, bias=False)
        self.network = make_decoder(options, data, options.latent_dim + options.label_dim)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.network(torch.cat([z, self.embedding(label)], dim=1))
