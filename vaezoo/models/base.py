"""The interface that every variational autoencoder of the zoo keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.data.spec import DataSpec
from vaezoo.models.distributions import diagonal_normal, log_mean_exp, mode, sample_prior
from vaezoo.models.likelihoods import Likelihood
from vaezoo.options import Options

if TYPE_CHECKING:
    from vaezoo.data.base import Batch
    from vaezoo.losses.base import BaseLoss


class VAEOutput(NamedTuple):
    """What a model says of a batch: q(z|x), a sample of it, p(z), and p(x|z) at the sample."""

    posterior: Distribution
    z: Tensor
    prior: Distribution
    likelihood: Distribution


class BaseVAE(nn.Module, ABC):
    """A variational autoencoder (Kingma & Welling 2013): q(z|x), p(z) and p(x|z).

    A subclass calls `super().__init__(options, data)`, sets `latent_shape`, and gives `encode` and
    `decode`. By convention its submodules `encoder`, `decoder` and `likelihood` hold the parameters
    of the two directions, so that a loss with several phases can tell them apart.

    A latent is one tensor, [batch, *latent_shape]: a hierarchy packs its levels along the last
    axis. `encode` and `decode` see one batch axis; several samples of each example are folded
    into it by the callers here.

    Labels `y` reach only models that say `conditional = True`; others are never given any.
    Evaluation runs under torch.no_grad, never inference_mode, so that a model whose posterior
    needs gradients (Hamiltonian) can enable them.
    """

    conditional: ClassVar[bool] = False
    min_batch_size: ClassVar[int] = 1
    single_process_reason: ClassVar[str] = ""
    """Why several processes cannot share its training steps, where they cannot."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of vaezoo.testing that it does not pass: name -> why that is as it should be."""

    options: Options
    data: DataSpec
    latent_shape: tuple[int, ...]
    likelihood: Likelihood
    loss: BaseLoss | None

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__()
        self.options = options
        self.data = data
        # The objective that create_model pairs with the model. No submodule: it owns itself.
        object.__setattr__(self, "loss", None)
        self._origin: Tensor
        self.register_buffer("_origin", torch.zeros(()), persistent=False)

    @abstractmethod
    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """The posterior q(z|x) with event shape `latent_shape`.

        x: [batch, *data.shape], in [0, 1] unless the domain is real. y: class numbers, [batch].
        """

    @abstractmethod
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """The likelihood p(x|z) with event shape `data.shape`. z: [batch, *latent_shape]."""

    def prior(self, y: Tensor | None = None) -> Distribution:
        """The prior p(z): a standard Gaussian, unless the model has another."""
        zeros = self._origin.expand(self.latent_shape)
        return diagonal_normal(zeros, torch.ones_like(zeros), len(self.latent_shape))

    def forward(self, x: Tensor, y: Tensor | None = None) -> VAEOutput:
        """One sample through the model; everything the ELBO needs, written once for all."""
        y = self.labels(y)
        posterior = self.encode(x, y)
        z = posterior.rsample()
        return VAEOutput(posterior, z, self.prior(y), self.decode(z, y))

    def on_train_step(self, step: Tensor) -> None:
        """Called before each training step with its number, a 0-dim int64 tensor on the device.

        Schedules that live in the model (a temperature) move here, into buffers, and therefore
        never move in evaluation. Must not read `step` back to the host.
        """
        return

    def fit_prior(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Called once after training; each call of `batches` gives one pass over the training set.

        For priors and samplers that are fitted afterwards (over codes, over latents).
        """
        return

    def labels(self, y: Tensor | None) -> Tensor | None:
        """The labels if this model is conditional, else None."""
        return y if self.conditional else None

    @torch.no_grad()
    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, mean: bool = True
    ) -> Tensor:
        """n examples from the model, [n, *data.shape].

        y: class numbers, [n], for conditional models. temperature: scales the prior's spread, see
        vaezoo.models.distributions.sample_prior. mean: the likelihood's mean, else a draw from it.
        """
        y = self.labels(y)
        prior = self.prior(y)
        likelihood = self.decode(sample_prior(prior, n, temperature), y)
        drawn: Tensor = likelihood.mean if mean else likelihood.sample()
        return drawn

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The likelihood's mean at the posterior's mean, [batch, *data.shape]."""
        y = self.labels(y)
        reconstruction: Tensor = self.decode(mode(self.encode(x, y)), y).mean
        return reconstruction

    def importance_log_weights(
        self, x: Tensor, y: Tensor | None = None, samples: int = 1
    ) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) for `samples` draws of z, in nats: [samples, batch].

        Burda et al. 2015, equation 8. The mean over samples is an unbiased estimate of the ELBO,
        and log_mean_exp over samples the importance-weighted bound. Gradients flow.
        """
        y = self.labels(y)
        posterior, prior = self.encode(x, y), self.prior(y)
        return self.log_importance_weights(
            posterior, prior, posterior.rsample(torch.Size((samples,))), x, y
        )

    def log_importance_weights(
        self,
        posterior: Distribution,
        prior: Distribution,
        z: Tensor,
        x: Tensor,
        y: Tensor | None = None,
    ) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) at given draws of z, in nats: [samples, batch].

        posterior: q(z|x) of the batch x. z: [samples, batch, *latent_shape]. Gradients flow.
        """
        y, samples = self.labels(y), len(z)
        # Each example `samples` times over, in the order in which z folds into one batch axis.
        many_x = x.expand(samples, *x.shape).flatten(0, 1)
        many_y = None if y is None else y.expand(samples, *y.shape).flatten(0, 1)
        log_likelihood = self.decode(z.flatten(0, 1), many_y).log_prob(many_x)
        log_ratio: Tensor = prior.log_prob(z) - posterior.log_prob(z)
        return log_likelihood.view(samples, len(x)) + log_ratio

    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, y: Tensor | None = None, samples: int = 100, chunk: int = 1024
    ) -> Tensor:
        """The importance-weighted estimate of log p(x), in nats: [batch].

        A lower bound in expectation that rises with `samples` (Burda et al. 2015, theorem 1).
        chunk: how many decoded examples are held at once; the estimate does not depend on it.
        """
        y = self.labels(y)
        # Once, not for every chunk: a learned prior may cost more than the decoder.
        posterior, prior = self.encode(x, y), self.prior(y)
        at_once = max(1, chunk // max(1, len(x)))
        weights = [
            self.log_importance_weights(
                posterior,
                prior,
                posterior.rsample(torch.Size((min(at_once, samples - done),))),
                x,
                y,
            )
            for done in range(0, samples, at_once)
        ]
        return log_mean_exp(torch.cat(weights), dim=0)
