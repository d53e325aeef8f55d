"""An autoencoder around a grid of codes: all that its quantisers share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo import BaseVAE, Batch, DataSpec
from vaezoo.models.likelihoods import make_likelihood
from vaezoo.nn.conv import ConvDown, ConvUp, ResidualBlock, level_sizes

from .codes import CodePosterior, CodePrior
from .options import GridOptions
from .quantiser import Quantiser
from .transformer import CodeTransformer


class GridVAE(BaseVAE):
    """Convolutions down to a grid of features, a quantiser, convolutions up again.

    As in van den Oord et al. (2017, section 3): the prior is uniform while this trains, and
    `fit_prior` then fits an autoregressive one to the codes of the training set. In training mode
    `prior` is the uniform one, in evaluation mode the network, which is uniform until it is fitted.
    """

    options: GridOptions
    min_batch_size = 2  # batch norm over a 1×1 grid needs two examples

    def __init__(self, options: GridOptions, data: DataSpec, quantiser: Quantiser) -> None:
        super().__init__(options, data)
        hidden = options.channels(data.height, data.width)
        self.grid = level_sizes(data.shape, len(hidden))[-1]
        self.latent_shape = (quantiser.width, *self.grid)

        residual, wide = options.network == "resnet", hidden[-1]
        self.encoder = nn.Sequential(
            ConvDown(data.shape, hidden, residual), nn.Conv2d(wide, quantiser.width, 1)
        )
        self.quantiser = quantiser
        self.decoder = nn.Sequential(
            nn.Conv2d(quantiser.width, wide, 3, padding=1),
            ResidualBlock(wide) if residual else nn.LeakyReLU(),
            ConvUp(data.shape, hidden, residual),
        )
        self.likelihood = make_likelihood(options, data)
        self.code_prior = CodeTransformer(
            quantiser.size, math.prod(self.grid), options.prior_width, options.prior_layers
        )

    def encode(self, x: Tensor, y: Tensor | None = None) -> CodePosterior:
        posterior: CodePosterior = self.quantiser(self.encoder(x))
        return posterior

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))

    def prior(self, y: Tensor | None = None) -> CodePrior:
        return CodePrior(self.quantiser, self.grid, self.code_prior, uniform=self.training)

    def fit_prior(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Fit the prior to the codes of one pass over the training set."""
        if self.options.prior_steps:
            self.code_prior.fit(self._codes(batches()), self.options.prior_steps)

    @torch.no_grad()
    def _codes(self, batches: Iterable[Batch]) -> Tensor:
        """The codes of all examples, int32 [examples, length]; nothing moves meanwhile."""
        training = self.training
        self.eval()
        codes = [self.encode(batch.x).codes.flatten(1).int() for batch in batches]
        self.train(training)
        return torch.cat(codes)
