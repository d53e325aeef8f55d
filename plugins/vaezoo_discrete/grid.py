"""The convolutional autoencoder around a quantizer, shared by VQ-VAE and FSQ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from vaezoo import Batch, DataSpec, EncoderDecoderVAE
from vaezoo.nn.conv import ConvDown, ConvUp, ResidualBlock, level_sizes

from .distributions import CodePosterior, CodePrior
from .options import GridOptions
from .quantizer import Quantizer
from .transformer import CodeTransformer


class GridVAE(EncoderDecoderVAE):
    """Convolutional encoder, quantizer, convolutional decoder; the latent is a grid of codes.

    As in van den Oord et al. (2017, section 3), the prior is uniform in training. `fit_prior` then
    fits an autoregressive prior to the indices of the training set, which is used in evaluation
    mode. Before it is fitted it is uniform too.
    """

    options: GridOptions

    def __init__(self, options: GridOptions, data: DataSpec, quantizer: Quantizer) -> None:
        hidden, code_dim = options.channels(data.height, data.width), quantizer.code_dim
        residual, channels = options.network == "resnet", hidden[-1]
        grid = level_sizes(data.shape, len(hidden))[-1]
        super().__init__(
            options,
            data,
            latent_shape=(code_dim, *grid),
            encoder=nn.Sequential(
                ConvDown(data, hidden, residual), nn.Conv2d(channels, code_dim, 1)
            ),
            decoder=nn.Sequential(
                nn.Conv2d(code_dim, channels, 3, padding=1),
                ResidualBlock(channels) if residual else nn.LeakyReLU(),
                ConvUp(data.shape, hidden, residual),
            ),
        )
        self.grid, self.quantizer = grid, quantizer
        self.code_prior = CodeTransformer(
            quantizer.num_codes, math.prod(grid), options.prior_width, options.prior_layers
        )

    def encode(self, x: Tensor, y: Tensor | None = None) -> CodePosterior:
        return CodePosterior(self.quantizer(self.encoder(x)), self.quantizer)

    def prior(self, y: Tensor | None = None) -> CodePrior:
        return CodePrior(self.quantizer, self.grid, self.code_prior, uniform=self.training)

    @property
    def prior_is_fitted(self) -> bool:
        return bool(self.code_prior.head.weight.any())

    @torch.no_grad()
    def fit_prior(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Fit the prior to the indices of one pass over the training set."""
        if not self.options.prior_steps:
            return
        training = self.training
        self.eval()  # so that no statistics and no codebook change
        indices = [self.encode(batch.x).indices.flatten(1).int() for batch in batches()]
        self.train(training)
        self.code_prior.fit(torch.cat(indices), self.options.prior_steps)
