"""VampPrior: a prior made of the model's own posteriors at learned pseudo-inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vaezoo import DataSpec, EncoderDecoderVAE, Parts
from vaezoo.errors import OptionError

from .mixture import GaussianMixture
from .options import VampPriorOptions


class VampPriorVAE(EncoderDecoderVAE):
    """A VAE with the prior p(z) = 1/K Σ_k q(z|u_k) (Tomczak & Welling 2017, equation 9).

    The K pseudo-inputs u_k are learned by the gradient of the ELBO. The KL to the mixture has no
    closed form: the rate is its single-sample estimate.

    As in the paper, pseudo-inputs are clamped to [0, 1]: outside of that range a value gets no
    gradient. They are not clamped for real data, which has no range, and counts only from below.

    Pseudo-inputs go through the encoder as in evaluation mode: batch norm uses the running
    statistics of the data and does not update them. So the prior is the same in training and
    evaluation, and no component depends on another.
    """

    options: VampPriorOptions

    def __init__(self, options: VampPriorOptions, data: DataSpec, parts: Parts) -> None:
        super().__init__(options, data, parts)
        if self.bottleneck.grid:
            raise OptionError("vamp_prior is for a latent vector: leave --latent-grid out")
        start = torch.empty(options.pseudo_inputs, *data.shape)
        self.pseudo = nn.Parameter(start.normal_(options.pseudo_mean, options.pseudo_std))

    def prior(self, y: Tensor | None = None) -> GaussianMixture:
        parameters = _apply_in_eval_mode(self.encoder, self.pseudo_inputs())
        components = self.bottleneck(parameters)
        return GaussianMixture(components.mean, components.stddev)

    def pseudo_inputs(self) -> Tensor:
        """The pseudo-inputs, [K, *data.shape], in the range of the data: in [0, 1], or from 0."""
        if self.data.domain == "real":
            return self.pseudo
        return self.pseudo.clamp(0.0, 1.0 if self.data.is_bounded else None)


def _apply_in_eval_mode(network: nn.Module, x: Tensor) -> Tensor:
    """network(x) as in evaluation mode, whatever its mode is; gradients flow.

    It uses copies of the buffers: a forward pass of the data may update the running statistics in
    place before the backward pass that still needs them, which autograd does not notice.
    """
    if not network.training:
        return network(x)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.eval()
    try:
        return functional_call(network, buffers, (x,))
    finally:
        network.train()
