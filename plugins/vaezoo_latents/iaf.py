"""A posterior by inverse autoregressive flow (Kingma et al. 2016)."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from vaezoo import Bottleneck
from vaezoo.models.distributions import BaseDistribution, gaussian_from_params

from .flow import Flow
from .options import IAFOptions


class FlowPosterior(BaseDistribution):
    """The distribution of flow(z, context) for z of the base distribution.

    base: batch shape (batch,), event shape (n,). context: [batch, c].
    """

    has_rsample = True

    def __init__(self, base: Distribution, flow: Flow, context: Tensor) -> None:
        super().__init__(base.batch_shape, base.event_shape)
        self.base, self.flow, self.context = base, flow, context
        self._last_sample: tuple[Tensor, Tensor] | None = None

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        start = self.base.rsample(sample_shape)
        z, log_det = self.flow(start, self.context)
        self._last_sample = z, self.base.log_prob(start) - log_det
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats (Kingma et al. 2016, equation 11): [...].

        For the last sample it is known from sampling, with gradients. Any other value is inverted
        exactly, in n passes through each step.
        """
        if self._last_sample is not None and value is self._last_sample[0]:
            return self._last_sample[1]
        start, log_det = self.flow.inverse(value, self.context)
        return self.base.log_prob(start) - log_det

    @property
    def mode(self) -> Tensor:
        """The flow of the base's mean: the mean of the flow has no closed form."""
        z, _ = self.flow(self.base.mean, self.context)
        return z


class IAFBottleneck(Bottleneck):
    """q(z|x) by inverse autoregressive flow (Kingma et al. 2016, algorithm 1), p(z) = N(0, 1).

    The encoder gives the base's mean and log-variance, and the context of every step. One pass
    gives a sample and its density, which is all that training and the importance-weighted bound
    need. The KL has no closed form: the rate is its single-sample estimate.
    """

    options: IAFOptions

    def __init__(self, options: IAFOptions, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options)
        n, context = options.latent_dim, options.context_dim
        self.num_params = 2 * n + context
        self.latent_shape = (n,)
        self.flow = Flow(n, context, options.flow_hidden, options.flow_steps)

    def forward(self, params: Tensor) -> FlowPosterior:
        n = self.options.latent_dim
        base = gaussian_from_params(params[:, : 2 * n], logvar_range=self.options.logvar_range)
        return FlowPosterior(base, self.flow, params[:, 2 * n :])
