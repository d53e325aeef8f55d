"""A posterior that is a Gaussian sent through an inverse autoregressive flow."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution
from torch.types import _size

from vaezoo import DataSpec
from vaezoo.models.distributions import BaseDistribution, gaussian_from_params
from vaezoo.nn.networks import make_encoder

from .base import NetworkVAE
from .flow import Flow
from .options import IAFOptions


class FlowPosterior(BaseDistribution):
    """The distribution of flow(z, context) for z of the base. Event shape (n,).

    base: [batch] over (n,). context: [batch, c].
    """

    has_rsample = True

    def __init__(self, base: Distribution, flow: Flow, context: Tensor) -> None:
        super().__init__(base.batch_shape, base.event_shape)
        self.base, self.flow, self.context = base, flow, context
        self._drawn: tuple[Tensor, Tensor] | None = None

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        start = self.base.rsample(sample_shape)
        z, log_det = self.flow(start, self.context)
        self._drawn = z, self.base.log_prob(start) - log_det
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats: Kingma et al. (2016), equation 11.

        Of the last draw it is known from drawing it, gradients included. Any other value is taken
        back through the flow, exactly, in n passes a step.
        """
        if self._drawn is not None and value is self._drawn[0]:
            return self._drawn[1]
        start, log_det = self.flow.inverse(value, self.context)
        return self.base.log_prob(start) - log_det

    @property
    def mode(self) -> Tensor:
        """The flow of the base's mean: the mean of the flow has no closed form."""
        z, _ = self.flow(self.base.mean, self.context)
        return z


class FlowEncoder(nn.Module):
    """From examples to their posteriors: mean and variance of the flow's start, and its context."""

    def __init__(self, options: IAFOptions, data: DataSpec) -> None:
        super().__init__()
        self.options = options
        n, context = options.latent_dim, options.context_dim
        self.body = make_encoder(options, data, 2 * n + context)
        self.flow = Flow(n, context, options.flow_hidden, options.flow_steps)

    def forward(self, x: Tensor) -> FlowPosterior:
        n = self.options.latent_dim
        features = self.body(x)
        base = gaussian_from_params(features[:, : 2 * n], logvar_range=self.options.logvar_range)
        return FlowPosterior(base, self.flow, features[:, 2 * n :])


class IAFVAE(NetworkVAE):
    """q(z|x) by inverse autoregressive flow (Kingma et al. 2016, algorithm 1), p(z) = N(0, 1).

    The encoder gives mean and variance of the flow's start, and a context that all of its steps
    see. One pass samples and tells the density of the sample, which is all that training and the
    importance-weighted bound ask for. The KL has no closed form: the rate is its single-sample
    estimate.
    """

    options: IAFOptions

    def __init__(self, options: IAFOptions, data: DataSpec) -> None:
        super().__init__(options, data, FlowEncoder(options, data))

    def encode(self, x: Tensor, y: Tensor | None = None) -> FlowPosterior:
        return self.encoder(x)
