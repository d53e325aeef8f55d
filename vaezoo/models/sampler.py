"""Sampler, the interface of priors that are fitted to the latents of a trained model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.models.bottleneck import Codebook
from vaezoo.options import Options


class LatentSpec(NamedTuple):
    """The latents that a sampler is fitted to.

    shape: of one latent. codebook: of latents that are codes, else None. num_classes: of the
    labels that the data has, 0 if it has none.
    """

    shape: tuple[int, ...]
    codebook: Codebook | None = None
    num_classes: int = 0


class Sampler(nn.Module, ABC):
    """A prior that is fitted after training, without a change of the model's weights.

    Its parameters and buffers are saved with the model, so their shapes are the same before and
    after fitting. No loss trains its parameters.
    """

    conditional: bool = False
    """Whether `distribution` uses class numbers; without them it is the marginal over classes."""
    has_density: ClassVar[bool] = True
    """Whether its distribution has an exact `log_prob`; metrics that need p(z) ask for it."""
    sampling_options: ClassVar[tuple[str, ...]] = ()
    """Options that change no weight, so that each use of a fitted sampler may set them anew."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of vaezoo.testing that fail for a good reason: name -> the reason."""

    def __init__(self, options: Options, latent: LatentSpec) -> None:
        super().__init__()
        self.options = options

    @property
    @abstractmethod
    def is_fitted(self) -> bool:
        """Whether `fit` has run; it must be read from a parameter or a buffer, which is saved."""

    @abstractmethod
    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        """Fit the prior: latents [n, *shape], or int32 indices of codes (see `Codebook`).

        y: class numbers, [n], -1 where unknown, or None.
        """

    @abstractmethod
    def distribution(self, y: Tensor | None = None) -> Distribution:
        """The prior: event shape `shape`, batch shape (), or [n] for classes y if it uses them."""
