"""A conditional variational autoencoder: encoder, decoder and prior get the class label."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaezoo import DataSpec, EncoderDecoderVAE, Parts
from vaezoo.errors import OptionError

from .networks import LabelledDecoder, LabelledEncoder, one_hot
from .options import ConditionalOptions


class ConditionalVAE(EncoderDecoderVAE):
    """q(z|x, y), p(z|y) and p(x|z, y), trained with the ELBO on log p(x|y).

    This is Sohn et al. (2015, equation 4), with the class y as the condition and the example x as
    the output. The prior is a Gaussian learned for each class, or, as in their section 4, the
    standard one for all classes: the latent is then independent of the class.

    An unknown class (-1, or no labels at all) is a row of zeros in the place of the one-hot label:
    it adds nothing to the networks' inputs, and its prior is the standard Gaussian. Examples
    without a label are trained on in this way.
    """

    options: ConditionalOptions
    conditional = True

    def __init__(self, options: ConditionalOptions, data: DataSpec, parts: Parts) -> None:
        network, bottleneck, likelihood = parts
        shape = likelihood.param_shape
        # The decoder first: its error about unsuitable data names the shape of the data itself.
        decoder = LabelledDecoder(options, data, network, bottleneck, shape)
        encoder = LabelledEncoder(options, data, network, bottleneck)
        super().__init__(options, data, parts, encoder=encoder, decoder=decoder)
        self.num_classes = len(data.class_names)
        self.prior_table: nn.Linear | None = None
        if options.prior == "learned":
            self.prior_table = nn.Linear(self.num_classes, bottleneck.num_params, bias=False)
            nn.init.zeros_(self.prior_table.weight)
            start = self._learned_prior(torch.zeros(1, self.num_classes))
            if not (isinstance(start, Independent) and isinstance(start.base_dist, Normal)):
                raise OptionError(
                    "--prior learned is a Gaussian for each class, and the posterior of this "
                    "bottleneck is none: give --prior standard"
                )

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return self.bottleneck(self.encoder(x, self._label(y, x)))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        features = self.bottleneck.decoder_input(z)
        return self.likelihood(self.decoder(features, self._label(y, z)))

    def prior(self, y: Tensor | None = None) -> Distribution:
        """p(z|y) with the batch shape of y; without y or a learned prior, that of all classes."""
        if self.prior_table is None or y is None:
            return super().prior(y)
        return self._learned_prior(self._label(y, self.prior_table.weight))

    def _learned_prior(self, label: Tensor) -> Distribution:
        assert self.prior_table is not None
        params, grid = self.prior_table(label), self.bottleneck.grid
        params = params.view(*params.shape, *[1] * len(grid)).expand(*params.shape, *grid)
        return self.bottleneck(params)

    def _label(self, y: Tensor | None, like: Tensor) -> Tensor:
        """One-hot labels, [batch, classes], in the dtype of `like`; zeros without y."""
        if y is None:
            return like.new_zeros(len(like), self.num_classes)
        return one_hot(y, self.num_classes).to(like.dtype)
