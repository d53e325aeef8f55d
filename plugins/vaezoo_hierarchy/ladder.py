"""The ladder variational autoencoder: several levels of latents, one way up and one way down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec
from vaezoo.models.distributions import diagonal_normal, gaussian_from_params, to_float32
from vaezoo.models.likelihoods import make_likelihood
from vaezoo.nn.networks import make_decoder, make_encoder

from .plugin import LadderOptions
from .top_down import LadderPosterior, TopDownPrior


class Upward(nn.Module):
    """What an example says of each level: deterministic layers upwards, a Gaussian from each.

    [batch, *shape] -> Gaussians over [batch, n], the lowest level first.
    """

    def __init__(self, options: LadderOptions, data: DataSpec, sizes: Sequence[int]) -> None:
        super().__init__()
        self.logvar_range = options.logvar_range
        width = options.level_hidden
        self.body = make_encoder(options, data, width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(width),
                nn.LeakyReLU(),
                nn.Linear(width, width),
                nn.BatchNorm1d(width),
                nn.LeakyReLU(),
            )
            for _ in sizes
        )
        self.heads = nn.ModuleList(nn.Linear(width, 2 * n) for n in sizes)

    def forward(self, x: Tensor) -> list[Distribution]:
        features, levels = self.body(x), []
        for layer, head in zip(self.layers, self.heads, strict=True):
            features = layer(features)
            levels.append(gaussian_from_params(head(features), logvar_range=self.logvar_range))
        return levels


class Below(nn.Module):
    """p(z_i | z_i+1): [..., n above] -> a Gaussian over [..., n]."""

    def __init__(self, above: int, hidden: int, n: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(above, hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, 2 * n),
        )

    def forward(self, above: Tensor) -> Distribution:
        loc, raw = to_float32(self.network(above)).chunk(2, -1)
        return diagonal_normal(loc, torch.exp(0.5 * raw.clamp(-20.0, 20.0)))


class Downward(nn.Module):
    """The generative direction: p(z_i | z_i+1) of each level but the top one, and the picture."""

    def __init__(self, options: LadderOptions, data: DataSpec, sizes: Sequence[int]) -> None:
        super().__init__()
        self.below = nn.ModuleList(
            Below(above, options.level_hidden, n) for n, above in pairwise(sizes)
        )
        self.body = make_decoder(options, data, sizes[0])

    def forward(self, lowest: Tensor) -> Tensor:
        return self.body(lowest)


class LadderVAE(BaseVAE):
    """Sønderby et al. (2016): p(x|z_1) Π p(z_i | z_i+1) p(z_L), inferred from the top down.

    A deterministic way up tells what x says of each level. The way down merges it with the prior
    that the level above gives, so that inference and generation share it and the KL of a level is
    between two Gaussians given the same level above. All levels stand side by side in one latent
    tensor, the lowest first; the decoder sees the lowest.

    As the paper has it, the way up has batch norm, without which what tells examples apart is lost
    on it, and training warms the KL up. The way down, which is the prior's too, goes without: what
    a level makes of a sample does not depend on the batch.
    """

    options: LadderOptions
    min_batch_size = 2  # batch norm needs two examples

    def __init__(self, options: LadderOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.sizes = (options.latent_dim, *options.upper)
        self.latent_shape = (sum(self.sizes),)
        self.encoder = Upward(options, data, self.sizes)
        self.decoder = Downward(options, data, self.sizes)
        self.likelihood = make_likelihood(options, data)

    def encode(self, x: Tensor, y: Tensor | None = None) -> LadderPosterior:
        return LadderPosterior(self.encoder(x), self.prior())

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z[:, : self.sizes[0]]))

    def prior(self, y: Tensor | None = None) -> TopDownPrior:
        zeros = super().prior().mean[-self.sizes[-1] :]
        top = diagonal_normal(zeros, torch.ones_like(zeros))
        return TopDownPrior([*self.decoder.below], top, self.sizes)
