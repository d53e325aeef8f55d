"""Critics: networks that tell two distributions apart, and what doing so costs them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.models.distributions import to_float32
from vaezoo.nn.conv import Rescale, level_sizes


class DenseCritic(nn.Module):
    """Dense layers with LeakyReLU: latents [batch, *latent_shape] -> log-odds [batch].

    log-odds: of being drawn from the one distribution and not from the other. Where the critic is
    optimal it is the log of the ratio of their densities (Goodfellow et al. 2014, proposition 1).
    """

    def __init__(self, in_features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide in hidden:
            layers += [nn.Linear(in_features, wide), nn.LeakyReLU(0.2)]
            in_features = wide
        self.body = nn.Sequential(nn.Flatten(), *layers, nn.Linear(in_features, 1), nn.Flatten(0))

    def forward(self, z: Tensor) -> Tensor:
        return to_float32(self.body(z))


class ImageCritic(nn.Module):
    """The discriminator of Larsen et al. (2015, table 1), for images of any size.

    5×5 convolutions, all but the first of which halve the image (rounding up), batch norm after
    all but the first, ReLU; then a dense layer. Images [batch, channels, height, width] in [0, 1]
    -> log-odds of being real, [batch], and the features of the last convolution, [batch, n].
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], features: int) -> None:
        super().__init__()
        levels = [nn.Conv2d(shape[0], hidden[0], 5, padding=2), nn.ReLU()]
        for narrow, wide in itertools.pairwise(hidden):
            halve = nn.Conv2d(narrow, wide, 5, stride=2, padding=2)
            levels += [halve, nn.BatchNorm2d(wide), nn.ReLU()]
        height, width = level_sizes(shape, len(hidden) - 1)[-1]
        self.features = nn.Sequential(Rescale(), *levels, nn.Flatten())
        self.verdict = nn.Sequential(
            nn.Linear(hidden[-1] * height * width, features),
            nn.BatchNorm1d(features),
            nn.ReLU(),
            nn.Linear(features, 1),
            nn.Flatten(0),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return to_float32(self.verdict(features)), to_float32(features)


def cross_entropy(real: Tensor, *false: Tensor) -> Tensor:
    """-E log σ(real) - Σ E log(1 - σ(false)) in nats: what a critic minimises. 0-dim.

    real, false: log-odds, [batch]. At chance it is log 2 for each of them.
    """
    return F.softplus(-real).mean() + torch.stack([F.softplus(odds).mean() for odds in false]).sum()
