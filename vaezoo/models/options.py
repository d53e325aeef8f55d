"""Options that bottlenecks share: the size of the latent, a Gaussian posterior. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field

from vaezoo.errors import OptionError
from vaezoo.options import Options


def _check_order(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] >= value[1]:
        raise ValueError("the lower limit comes first, as in -6,2")
    return value


LogvarRange = Annotated[tuple[float, float], AfterValidator(_check_order)]
"""The lower and the upper limit of a log-variance."""


class LatentOptions(Options):
    """The size of the latent, and whether it is a vector or a grid."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"latent_dim": 4}

    latent_dim: int | None = Field(
        None,
        ge=1,
        description="size of the latent vector, or channels of a grid; none: 128, or for data of "
        "vectors with fewer values as many as they have",
    )
    latent_grid: bool = Field(
        False,
        description="a latent of latent_dim channels at each position of the network's grid, "
        "instead of one vector",
    )

    @property
    def num_latents(self) -> int:
        """The size of the latent vector, or the channels of a grid."""
        return 128 if self.latent_dim is None else self.latent_dim

    def for_vectors(self, values: int) -> Self:
        """With more latents than values each holds little, and samples vary less than the data."""
        if self.latent_dim is not None:
            return self
        return self.model_copy(update={"latent_dim": min(values, self.num_latents)})

    def choose_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The grid of the latent: the network's, or () for a vector.

        OptionError if a grid is asked for and the network has none.
        """
        if self.latent_grid and not grid:
            raise OptionError("--latent-grid needs a network with a grid of features")
        return grid if self.latent_grid else ()


class GaussianOptions(LatentOptions):
    """LatentOptions for a Gaussian posterior."""

    logvar_range: LogvarRange = Field(
        (-20.0, 20.0), description="range that the posterior's log-variance is clamped to"
    )
