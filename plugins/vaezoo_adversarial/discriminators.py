"""Discriminators for latents and for images, and the cross-entropy that they minimise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo import DataSpec
from vaezoo.models.distributions import to_float32
from vaezoo.nn.scaling import level_sizes, rescaling


class MLPDiscriminator(nn.Module):
    """An MLP with LeakyReLU that classifies latents as real or fake.

    [batch, *latent_shape] -> the logit of being real, [batch]. The optimal logit is the log of the
    ratio of the two densities (Goodfellow et al. 2014, proposition 1).
    """

    def __init__(self, in_features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for features in hidden:
            layers += [nn.Linear(in_features, features), nn.LeakyReLU(0.2)]
            in_features = features
        self.body = nn.Sequential(nn.Flatten(), *layers, nn.Linear(in_features, 1), nn.Flatten(0))

    def forward(self, z: Tensor) -> Tensor:
        return to_float32(self.body(z))


class ConvDiscriminator(nn.Module):
    """The convolutional discriminator of Larsen et al. (2015, table 1), for images of any size.

    5×5 convolutions with ReLU; all but the first halve the image (rounding up) and have batch norm;
    then a dense layer. Images, [batch, *data.shape] -> the logit of being real, [batch], and the
    features of the last convolution, [batch, n].
    """

    def __init__(self, data: DataSpec, hidden: Sequence[int], features: int) -> None:
        super().__init__()
        levels = [nn.Conv2d(data.channels, hidden[0], 5, padding=2), nn.ReLU()]
        for before, channels in itertools.pairwise(hidden):
            halve = nn.Conv2d(before, channels, 5, stride=2, padding=2)
            levels += [halve, nn.BatchNorm2d(channels), nn.ReLU()]
        height, width = level_sizes(data.shape, len(hidden) - 1)[-1]
        self.features = nn.Sequential(*rescaling(data), *levels, nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(hidden[-1] * height * width, features),
            nn.BatchNorm1d(features),
            nn.ReLU(),
            nn.Linear(features, 1),
            nn.Flatten(0),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return to_float32(self.head(features)), to_float32(features)


def cross_entropy(real: Tensor, *fake: Tensor) -> Tensor:
    """The discriminator's loss, -E log σ(real) - Σ E log(1 - σ(fake)), in nats: 0-dim.

    real, fake: logits, [batch]. At chance it is log 2 for each of them.
    """
    each = [F.softplus(logits).mean() for logits in fake]
    return F.softplus(-real).mean() + torch.stack(each).sum()
