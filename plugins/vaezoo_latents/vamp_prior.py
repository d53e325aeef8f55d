"""A prior made of the model's own posteriors at learned pseudo-inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call

from vaezoo import DataSpec
from vaezoo.models.distributions import gaussian_from_params
from vaezoo.nn.networks import make_encoder

from .base import NetworkVAE
from .mixture import GaussianMixture
from .options import VampPriorOptions


class VampPriorVAE(NetworkVAE):
    """The "variational mixture of posteriors" prior (Tomczak & Welling 2017).

    p(z) = 1/K Σ_k q(z|u_k) (equation 9), with K pseudo-inputs u_k that are learned by the gradient
    of the ELBO together with everything else. The KL to it has no closed form: the rate is its
    single-sample estimate. Samples come from the mixture.

    A pseudo-input is the paper's linear layer on a one-hot input, which is a row of weights, cut
    off to [0, 1] (its hardtanh): outside of that range a value gets no gradient, so start it
    inside. Real data has no range, and its pseudo-inputs are not cut off.

    Pseudo-inputs go through the encoder as in evaluation: batch norm takes the running statistics
    of the data and does not move them. The prior is then the same in training and in evaluation,
    no component depends on another, and the data is normalised as if they were not there.
    """

    options: VampPriorOptions

    def __init__(self, options: VampPriorOptions, data: DataSpec) -> None:
        super().__init__(options, data, make_encoder(options, data, 2 * options.latent_dim))
        start = torch.empty(options.pseudo_inputs, *data.shape)
        self.pseudo = nn.Parameter(start.normal_(options.pseudo_mean, options.pseudo_std))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return gaussian_from_params(self.encoder(x), logvar_range=self.options.logvar_range)

    def prior(self, y: Tensor | None = None) -> GaussianMixture:
        parameters = _as_in_evaluation(self.encoder, self.pseudo_inputs())
        components = gaussian_from_params(parameters, logvar_range=self.options.logvar_range)
        return GaussianMixture(components.mean, components.stddev)

    def pseudo_inputs(self) -> Tensor:
        """[K, *data.shape], in [0, 1] unless the domain is real."""
        return self.pseudo if self.data.domain == "real" else self.pseudo.clamp(0.0, 1.0)


def _as_in_evaluation(network: nn.Module, x: Tensor) -> Tensor:
    """network(x) as in evaluation, in whatever mode it is; gradients flow.

    By copies of its buffers: a pass of the data in training mode moves the statistics in place and
    unseen by autograd, perhaps before the backward that still needs them.
    """
    if not network.training:
        return network(x)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.eval()
    try:
        return functional_call(network, buffers, (x,))
    finally:
        network.train()
