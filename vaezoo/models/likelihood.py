"""Likelihood, the interface of p(x|z): from the decoder's output to a distribution of examples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.data.spec import DataSpec, Domain
from vaezoo.options import Options


class Likelihood(nn.Module, ABC):
    """Maps the decoder's output to a distribution over examples.

    The distribution's mean is the reconstruction, in [0, 1] unless the data is real. Its
    log-probability is in nats per example.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of vaezoo.testing that fail for a good reason: name -> the reason."""

    normalised_on: ClassVar[tuple[Domain, ...]] = ()
    """The domains of data on which it is a normalised likelihood, and has bits per dimension."""

    is_discrete: ClassVar[bool] = False
    """Whether it gives grey levels probabilities, not a density."""

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__()
        self.options = options
        self.data = data

    @property
    def param_shape(self) -> tuple[int, ...]:
        """The shape that it needs from the decoder; by default one parameter for each value."""
        return self.data.shape

    @abstractmethod
    def forward(self, params: Tensor) -> Distribution:
        """p(x|z), event shape `data.shape`. params: unbounded, [batch, *param_shape]."""

    def bits_per_dim(self, nats: float, data: DataSpec) -> float | None:
        """Bits per dimension of a negative log-likelihood in nats per example.

        The probability of one of 256 grey levels is that of a discrete likelihood, else taken to be
        the density times the width of a level, 1/255. None where the likelihood is not normalised
        on the data (a Bernoulli on grey values), and for real data, which has no levels.
        """
        if data.domain == "real" or data.domain not in self.normalised_on:
            return None
        bits = nats / (data.numel * math.log(2))
        is_density = data.domain == "unit" and not self.is_discrete
        return bits + math.log2(255) if is_density else bits
