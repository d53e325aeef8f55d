"""Encoder and decoder that take a class label beside their input."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vaezoo import Bottleneck, DataSpec, Network

from .options import ConditionalOptions


def one_hot(y: Tensor, classes: int) -> Tensor:
    """One-hot labels, [batch, classes]; a row of zeros where the class is unknown (-1)."""
    return (y[:, None] == torch.arange(classes, device=y.device)).float()


class LabelledEncoder(nn.Module):
    """Examples and one-hot labels to a bottleneck's parameters.

    [batch, *shape], [batch, classes] -> [batch, num_params, *grid]. The embedded label is
    concatenated to the example: as constant channels for a network with a grid of features, and
    as further values of a vector for others.
    """

    def __init__(
        self, options: ConditionalOptions, data: DataSpec, network: Network, bottleneck: Bottleneck
    ) -> None:
        super().__init__()
        self.as_channels = bool(network.latent_grid)
        first, *rest = data.shape if self.as_channels else (data.numel,)
        labelled = replace(data, shape=(first + options.label_dim, *rest))
        self.embedding = nn.Linear(len(data.class_names), options.label_dim, bias=False)
        network = type(network)(network.options, labelled)
        make = network.grid_encoder if bottleneck.grid else network.encoder
        self.network = make(bottleneck.num_params)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x = x if self.as_channels else x.flatten(1)
        return self.network(torch.cat([x, _everywhere(self.embedding(label), x)], dim=1))


class LabelledDecoder(nn.Module):
    """Latents and one-hot labels to a likelihood's parameters.

    [batch, features, *grid], [batch, classes] -> [batch, *out_shape].
    """

    def __init__(
        self,
        options: ConditionalOptions,
        data: DataSpec,
        network: Network,
        bottleneck: Bottleneck,
        out_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(len(data.class_names), options.label_dim, bias=False)
        make = network.grid_decoder if bottleneck.grid else network.decoder
        self.network = make(bottleneck.out_features + options.label_dim, out_shape)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return self.network(torch.cat([z, _everywhere(self.embedding(label), z)], dim=1))


def _everywhere(label: Tensor, like: Tensor) -> Tensor:
    """A label, [batch, n], at each position of `like`: [batch, n, *spatial]."""
    spatial = like.shape[2:]
    return label.reshape(*label.shape, *[1] * len(spatial)).expand(-1, -1, *spatial)
