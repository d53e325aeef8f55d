"""A variational autoencoder of what an example is besides its class."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec
from vaezoo.models.distributions import gaussian_from_params
from vaezoo.models.likelihoods import make_likelihood

from .networks import LabelledDecoder, LabelledEncoder, one_hot
from .plugin import ConditionalOptions


class ConditionalVAE(BaseVAE):
    """q(z|x, y), p(z|y) and p(x|z, y), trained with the ELBO on log p(x|y).

    This is Sohn et al. (2015, equation 4), whose condition is here the class y and whose output is
    the example x. The prior is a Gaussian learned for each class, or, as they relax it in section
    4, the standard one for all: the latent is then independent of the class.

    An unknown class (-1, or no labels at all) is a row of zeros where a known one has its one: it
    adds nothing to the networks' inputs, and its prior is the standard Gaussian. Examples without
    a label are trained on in that way.
    """

    options: ConditionalOptions
    conditional = True
    min_batch_size = 2  # batch norm over a 1×1 image needs two examples

    def __init__(self, options: ConditionalOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.latent_shape = (options.latent_dim,)
        self.class_names = len(data.class_names)
        # The decoder first: where the network does not suit the data, it says so in the data's
        # own numbers.
        self.decoder = LabelledDecoder(options, data)
        self.encoder = LabelledEncoder(options, data, 2 * options.latent_dim)
        self.likelihood = make_likelihood(options, data)
        self.prior_table: nn.Linear | None = None
        if options.prior == "learned":
            self.prior_table = nn.Linear(self.class_names, 2 * options.latent_dim, bias=False)
            nn.init.zeros_(self.prior_table.weight)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        parameters = self.encoder(x, self._label(y, x))
        return gaussian_from_params(parameters, logvar_range=self.options.logvar_range)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z, self._label(y, z)))

    def prior(self, y: Tensor | None = None) -> Distribution:
        """p(z|y) with the batch shape of y; one distribution for all where it does not say more."""
        if self.prior_table is None or y is None:
            return super().prior(y)
        return gaussian_from_params(self.prior_table(self._label(y, self.prior_table.weight)))

    def _label(self, y: Tensor | None, like: Tensor) -> Tensor:
        """[batch, classes], of the type of `like`, and of its batch where no label is known."""
        if y is None:
            return like.new_zeros(len(like), self.class_names)
        return one_hot(y, self.class_names).to(like.dtype)
