"""The ladder VAE (Sønderby et al. 2016): several levels of latents, inferred from the top down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, Network, Parts
from vaezoo.models.distributions import diagonal_normal, gaussian_from_params, to_float32

from .options import LadderOptions
from .top_down import LadderPosterior, TopDownPrior


class BottomUpEncoder(nn.Module):
    """The deterministic upward pass, with a Gaussian from each level.

    [batch, *shape] -> Gaussians over [batch, n], the lowest level first.
    """

    def __init__(self, options: LadderOptions, network: Network, sizes: Sequence[int]) -> None:
        super().__init__()
        self.logvar_range = options.logvar_range
        hidden = options.level_hidden
        self.body = network.encoder(hidden)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(hidden),
                nn.LeakyReLU(),
                nn.Linear(hidden, hidden),
                nn.BatchNorm1d(hidden),
                nn.LeakyReLU(),
            )
            for _ in sizes
        )
        self.heads = nn.ModuleList(nn.Linear(hidden, 2 * n) for n in sizes)

    def forward(self, x: Tensor) -> list[Distribution]:
        features, levels = self.body(x), []
        for layer, head in zip(self.layers, self.heads, strict=True):
            features = layer(features)
            levels.append(gaussian_from_params(head(features), logvar_range=self.logvar_range))
        return levels


class ConditionalPrior(nn.Module):
    """p(z_i | z_i+1): [..., n above] -> a Gaussian over [..., n]."""

    def __init__(self, n_above: int, hidden: int, n: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(n_above, hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, 2 * n),
        )

    def forward(self, above: Tensor) -> Distribution:
        loc, logvar = to_float32(self.network(above)).chunk(2, -1)
        return diagonal_normal(loc, torch.exp(0.5 * logvar.clamp(-20.0, 20.0)))


class TopDownDecoder(nn.Module):
    """The decoder of the lowest level, and the conditional priors of all levels but the top one."""

    def __init__(
        self,
        options: LadderOptions,
        network: Network,
        sizes: Sequence[int],
        out_shape: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.conditionals = nn.ModuleList(
            ConditionalPrior(n_above, options.level_hidden, n) for n, n_above in pairwise(sizes)
        )
        self.body = network.decoder(sizes[0], out_shape)

    def forward(self, lowest: Tensor) -> Tensor:
        return self.body(lowest)


class LadderVAE(BaseVAE):
    """p(x|z_1) Π p(z_i | z_i+1) p(z_L), with top-down inference (Sønderby et al. 2016).

    A deterministic upward pass gives a Gaussian for each level. The downward pass merges it with
    the prior given the level above, which inference and generation share. So the KL of a level is
    between two Gaussians. The latent is one tensor with all levels side by side, the lowest first;
    the decoder gets only the lowest.

    As in the paper, the upward pass has batch norm, and training warms the KL up. The downward pass
    has none, so a level's distribution does not depend on the other examples of a batch.
    """

    parts = ("network", "likelihood")
    options: LadderOptions

    def __init__(self, options: LadderOptions, data: DataSpec, parts: Parts) -> None:
        super().__init__(options, data)
        self.sizes = (options.latent_dim, *options.upper)
        self.latent_shape = (sum(self.sizes),)
        self.likelihood = parts.likelihood
        shape = self.likelihood.param_shape
        self.encoder = BottomUpEncoder(options, parts.network, self.sizes)
        self.decoder = TopDownDecoder(options, parts.network, self.sizes, shape)

    def encode(self, x: Tensor, y: Tensor | None = None) -> LadderPosterior:
        return LadderPosterior(self.encoder(x), self.prior())

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z[:, : self.sizes[0]]))

    def prior(self, y: Tensor | None = None) -> TopDownPrior:
        zeros = super().prior().mean[-self.sizes[-1] :]
        top = diagonal_normal(zeros, torch.ones_like(zeros))
        return TopDownPrior([*self.decoder.conditionals], top, self.sizes)
