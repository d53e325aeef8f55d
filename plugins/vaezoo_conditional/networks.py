"""Encoder and decoder that take a class label beside their input."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vaezoo import DataSpec
from vaezoo.nn.networks import make_decoder, make_encoder

from .plugin import ConditionalOptions


def one_hot(y: Tensor, classes: int) -> Tensor:
    """One-hot labels, [batch, classes]; a row of zeros where the class is unknown (-1)."""
    return (y[:, None] == torch.arange(classes, device=y.device)).float()


class LabelledEncoder(nn.Module):
    """Examples and one-hot labels to features: [batch, *shape], [batch, classes] -> [batch, n].

    The embedded label is concatenated to the example: as constant channels of an image, and as
    further values of a vector.
    """

    def __init__(self, options: ConditionalOptions, data: DataSpec, out_features: int) -> None:
        super().__init__()
        self.as_channels = "mlp" not in options.network
        first, *rest = data.shape if self.as_channels else (data.numel,)
        labelled = replace(data, shape=(first + options.label_dim, *rest))
        self.embedding = nn.Linear(len(data.class_names), options.label_dim, bias=False)
        self.network = make_encoder(options, labelled, out_features)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        embedded = self.embedding(label)
        if self.as_channels:
            embedded = embedded[:, :, None, None].expand(-1, -1, *x.shape[2:])
        else:
            x = x.flatten(1)
        return self.network(torch.cat([x, embedded], dim=1))


class LabelledDecoder(nn.Module):
    """Latents and one-hot labels to examples: [batch, n], [batch, classes] -> [batch, *shape]."""

    def __init__(self, options: ConditionalOptions, data: DataSpec) -> None:
        super().__init__()
        self.embedding = nn.Linear(len(data.class_names), options.label_dim, bias=False)
        self.network = make_decoder(options, data, options.latent_dim + options.label_dim)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.network(torch.cat([z, self.embedding(label)], dim=1))
