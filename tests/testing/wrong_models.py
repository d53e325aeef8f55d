"""One model that keeps the contract, and others that each break it in one place.

A plugin in a file: the tests load it as one, and so can the processes that a check starts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, StudentT

from vaezoo import Batch, DataSpec, InputSpec, Options
from vaezoo.models.distributions import diagonal_normal, gaussian_from_params, kl_divergence
from vaezoo.testing.subjects import ReferenceVAE

LATENTS = 4


class Right(ReferenceVAE):
    """The reference model: everything else here is this, but for one thing."""


class ImagesOfOneSize(Right):
    """A model that is right, for one shape only."""

    input_spec = InputSpec(shape=(1, 16, 16))


# shapes


class TooWide(Right):
    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        self.latent_shape = (LATENTS + 1,)


class PastOne(Right):
    """A tanh against values in [0, 1]."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        mean = torch.tanh(5 * self.decoder(z))
        return diagonal_normal(mean, torch.full_like(mean, 0.3), mean.dim() - 1)


class ForgetsItsUnits(Right):
    """Its density is of standardised values, whatever the units of the data are."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        mean = super().decode(z, y).mean
        return diagonal_normal(mean, torch.full_like(mean, 0.3), mean.dim() - 1)


class GreyOnly(Right):
    """Written for one channel, and does not say so."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return super().encode(x[:, :1])


class EvenOnly(Right):
    """Halves the image, and forgets that a side may be odd."""

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        if data.is_image:
            small = (data.channels, data.height // 2, data.width // 2)
            self.decoder = nn.Sequential(
                nn.Linear(LATENTS, small[0] * small[1] * small[2]),
                nn.Unflatten(1, small),
                nn.Upsample(scale_factor=2),
            )


class Squeezed(Right):
    """Loses the batch axis where there is one example."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        mean = torch.sigmoid(self.decoder(z)).squeeze(0)
        return diagonal_normal(mean, torch.full_like(mean, 0.3), len(self.data.shape))


class DoubleTrouble(Right):
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        mean = torch.sigmoid(self.decoder(z)).double()
        return diagonal_normal(mean, torch.full_like(mean, 0.3), mean.dim() - 1)


# rate and bound


class OwnKL(Independent):
    """A posterior with its own KL, which is wrong."""

    def __init__(self, base: Normal, wrong: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(base, 1, validate_args=False)
        self.wrong = wrong

    def kl_divergence(self, prior: Distribution, z: Tensor) -> Tensor:
        plain = Independent(self.base_dist, 1)
        return self.wrong(kl_divergence(plain, prior, z), kl_divergence(prior, plain, z))


class Halved(Right):
    """The one half is missing, or is there twice."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return OwnKL(self._normal(x), self.wrong)

    def _normal(self, x: Tensor) -> Normal:
        base: Any = super().encode(x)
        return base.base_dist

    def wrong(self, kl: Tensor, reverse: Tensor) -> Tensor:
        return kl / 2


class Swapped(Halved):
    def wrong(self, kl: Tensor, reverse: Tensor) -> Tensor:
        return reverse


class Negative(Halved):
    def wrong(self, kl: Tensor, reverse: Tensor) -> Tensor:
        return -kl


class Shifted(Independent):
    """A prior that is not at no distance from itself."""

    def kl_divergence(self, prior: Distribution, z: Tensor) -> Tensor:
        return torch.ones(len(z))


class OffPrior(Right):
    def prior(self, y: Tensor | None = None) -> Distribution:
        zeros = self._origin.expand(LATENTS)
        return Shifted(Normal(zeros, zeros + 1), 1)


class WeighsTwice(Right):
    """The densities of the latents counted twice in the importance weights."""

    def log_importance_weights(
        self, x: Tensor, y: Tensor | None = None, samples: int = 1
    ) -> Tensor:
        z = self.encode(x).rsample(torch.Size((samples,)))
        once = super().log_importance_weights(x, y, samples)
        return once + self.prior().log_prob(z) - self.encode(x).log_prob(z)


class LowEstimate(Right):
    def log_likelihood(
        self, x: Tensor, y: Tensor | None = None, samples: int = 100, chunk: int = 1024
    ) -> Tensor:
        return self.log_importance_weights(x, y, samples).min(0).values - 1000


# terms and what they are made of


class LogOfZero(Right):
    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return super().encode(x.log())


# learning


class Deaf(Right):
    """The decoder does not use the latent."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return super().decode(0 * z)


class Idle(Right):
    """A layer that nothing goes through."""

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        self.spare = nn.Linear(2, 2)


class Detached(Right):
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return super().decode(z.detach())

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        raw = self.encoder(x).detach()
        return gaussian_from_params(raw)


# repeatable


class Dice(Right):
    """Noise from another generator than torch's."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return super().encode(x + 1e-2 * random.random())


class StartsByDice(Right):
    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        with torch.no_grad():
            self.decoder[0].bias.fill_(random.random())  # type: ignore[operator, union-attr]


class AlwaysTheSame(Right):
    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, mean: bool = True
    ) -> Tensor:
        return self.decode(torch.zeros(n, LATENTS)).mean


class Crowd(Right):
    """Statistics of the batch, in evaluation too."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return super().encode(x - x.mean(0))


class CrowdDecoder(Right):
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return super().decode(z - z.mean(0))


class Counts(Right):
    """A schedule that moves whenever the model is used."""

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        self.calls += 1
        return super().encode(x)


class Drifts(Right):
    """The same, where no state_dict shows it."""

    calls = 0

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        self.calls += 1
        return super().encode(x * (1 + 0.1 * self.calls))


# storage


class Forgets(Right):
    """A temperature that training moves, and that is not saved."""

    temperature = 1.0

    def on_train_step(self, step: Tensor) -> None:
        self.temperature = self.temperature * 0.99

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return super().decode(z / self.temperature)


class ForgetsItsPrior(Right):
    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(LATENTS), persistent=False)

    def fit_sampler(self, batches: Iterable[Batch]) -> None:
        self.centre += 2.0

    def prior(self, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(self.centre, torch.ones_like(self.centre))


class MuteOptions(Options):
    width: int = 3


class Undescribed(Right):
    options: MuteOptions


class NestedOptions(Options):
    sizes: tuple[tuple[int, int], ...] = Field(((1, 2), (3, 4)), description="pairs of sizes")


class Unspeakable(Right):
    """An option that no command line can say."""

    options: NestedOptions  # type: ignore[assignment]

    def __init__(self, options: NestedOptions, data: DataSpec) -> None:
        super().__init__(Options(), data)


# labels and samples


class Ignores(Right):
    conditional = True


class NeedsLabels(Right):
    """Cannot do without labels, and does not say so."""

    conditional = True

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        assert y is not None
        return super().decode(z + y[:, None])


class UnfittedPrior(Right):
    fitted = False

    def fit_sampler(self, batches: Iterable[Batch]) -> None:
        self.fitted = True

    def prior(self, y: Tensor | None = None) -> Distribution:
        if not self.fitted:
            raise RuntimeError("fit the prior first")
        return super().prior(y)


class RunsAway(Right):
    def fit_sampler(self, batches: Iterable[Batch]) -> None:
        with torch.no_grad():
            self.decoder[0].weight.fill_(torch.nan)  # type: ignore[operator, union-attr]


# arithmetic


class ReadsBack(Right):
    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return super().encode(x / x.max().item())


class Unregistered(Right):
    """A constant that stays where it was built when the model moves."""

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        self.scale = torch.ones(LATENTS)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return super().decode(z * self.scale)


class CopiesEachStep(Right):
    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return super().encode(x - torch.tensor([0.1], device=x.device))


class BranchesInEvaluation(Right):
    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return super().encode(x if self.training or x.sum() > 0 else -x)


class PicksByMask(Right):
    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, mean: bool = True
    ) -> Tensor:
        found = super().sample(n, y, temperature, mean)
        return found[found.isfinite().flatten(1).all(1)]


class OfItsUnits(Independent):
    """A density of standardised values in the units of the data."""

    def __init__(self, base: Distribution, log_det: float) -> None:
        super().__init__(base, len(base.batch_shape) - 1)
        self.log_det = log_det

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - self.log_det


class Checked(Right):
    """Nothing wrong: torch's Student-t checks the Chi2 inside it, whatever one asks of itself."""

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        mean = self.likelihood(self.decoder(z)).mean
        scale = 0.3 + 0 * mean
        return OfItsUnits(StudentT(torch.tensor(3.0), mean, scale), self.data.log_det)


class OtherwiseCompiled(Right):
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return super().decode(2 * z if torch.compiler.is_compiling() else z)


class MixesProcesses(Right):
    """Shares the examples of all processes, in the forward pass."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        x = x.clone()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(x)
        return super().encode(x)
