"""The bottleneck around a quantizer: a grid of codes, with a uniform prior."""

from __future__ import annotations

from torch import Tensor

from vaezoo import Bottleneck, Options
from vaezoo.errors import OptionError

from .distributions import CodePosterior, CodePrior
from .quantizer import Quantizer


class QuantizerBottleneck(Bottleneck):
    """Replaces the features at each position of the grid by codes of a quantizer.

    As in van den Oord et al. (2017, section 3), the prior is uniform in training; the sampler
    `autoregressive` then fits one to the indices of the training set.
    """

    def __init__(self, options: Options, grid: tuple[int, ...], quantizer: Quantizer) -> None:
        if not grid:
            raise OptionError("codes need a network with a grid of features")
        super().__init__(options, grid)
        self.quantizer = quantizer
        self.num_params = quantizer.dim
        self.latent_shape = (quantizer.code_dim, *quantizer.codes_grid(grid))

    @property
    def out_features(self) -> int:
        return self.quantizer.dim

    @property
    def codebook(self) -> Quantizer:
        return self.quantizer

    def forward(self, params: Tensor) -> CodePosterior:
        return CodePosterior(self.quantizer(params), self.quantizer)

    def prior(self) -> CodePrior:
        return CodePrior(self.quantizer, self.latent_shape[1:], self._origin)

    def decoder_input(self, z: Tensor) -> Tensor:
        return self.quantizer.codes_to_features(z)
