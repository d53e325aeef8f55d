"""Distributions over the values of an example, which are independent given the parameters."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.types import _size

from vaezoo.models.distributions import BaseDistribution, to_float32


class IndependentValues(BaseDistribution):
    """Base of own distributions: a subclass gives the log-probability of each value.

    parameter: a tensor [batch, *event] that has the shape of all parameters together.
    """

    def __init__(self, parameter: Tensor) -> None:
        super().__init__(parameter.shape[:1], parameter.shape[1:])

    @abstractmethod
    def value_log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of each value in nats: the shape of `value`, float32 or float64."""

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum over an example's values, in nats: [batch]."""
        first = value.dim() - len(self.event_shape)
        return self.value_log_prob(to_float32(value)).flatten(first).sum(first)

    def extended(self, sample_shape: _size) -> _size:
        """The shape of samples: [*sample_shape, batch, *event]."""
        return self._extended_shape(sample_shape)


class Standardized(Independent[Distribution]):
    """A density of standardised values, as the density of the data in its own units.

    base: its last `event_dims` batch dimensions are the event. log_det: `DataSpec.log_det`.
    """

    def __init__(self, base: Distribution, event_dims: int, log_det: float = 0.0) -> None:
        super().__init__(base, event_dims, validate_args=False)
        self.log_det = log_det

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(to_float32(value)) - self.log_det

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> Standardized:
        base = self.base_dist.expand([*batch_shape, *self.event_shape])
        return Standardized(base, self.reinterpreted_batch_ndims, self.log_det)
