"""BaseVAE, the interface of all models, and the generic VAE of an encoder and a decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.data.spec import DataSpec
from vaezoo.errors import OptionError
from vaezoo.models.bottleneck import Bottleneck, Codebook
from vaezoo.models.distributions import (
    log_mean_exp,
    mode,
    project_to_prior,
    sample_prior,
    standard_normal,
)
from vaezoo.models.likelihood import Likelihood
from vaezoo.models.network import Network
from vaezoo.models.sampler import Sampler
from vaezoo.options import Options

if TYPE_CHECKING:
    from vaezoo.data.base import Batch


class VAEOutput(NamedTuple):
    """The output of a forward pass: q(z|x), a sample z of it, p(z), and p(x|z) at this z."""

    posterior: Distribution
    z: Tensor
    prior: Distribution
    likelihood: Distribution


UNFITTED_PRIOR = (
    "the prior of this model is not fitted, so that its samples look unlike the data: it is fitted "
    "when training ends, unless an option prevents it"
)


class Parts(NamedTuple):
    """The parts that a model is built of, those of its class attribute `parts`; None for others."""

    network: Network
    bottleneck: Bottleneck
    likelihood: Likelihood


class BaseVAE(nn.Module, ABC):
    """A variational autoencoder (Kingma & Welling 2013): q(z|x), p(z) and p(x|z).

    A subclass calls `super().__init__(options, data)`, sets `latent_shape`, and defines `encode`
    and `decode`. If its class attribute `parts` names kinds, it gets them as a third
    argument. By convention its submodules `encoder`, `decoder` and `likelihood` hold the parameters
    of q(z|x) and of p(x|z), for losses that train the two in separate phases.

    A latent is one tensor, [batch, *latent_shape]: a hierarchy packs its levels along the last
    dimension. `encode` and `decode` take one batch dimension. A method here that needs
    several samples of each example folds them into the batch dimension.

    Real-valued examples are standardised, in and out: `vaezoo.data.base.Standardizer` converts
    them. Log-probabilities are of the data in its own units: a likelihood of standardised values
    subtracts `data.log_det`.

    Labels `y` are passed only to models with `conditional = True`. Evaluation runs under
    torch.no_grad, never inference_mode, so that a model whose posterior needs gradients
    (Hamiltonian) can enable them.
    """

    parts: ClassVar[tuple[str, ...]] = ()
    """The kinds of parts that it is built of, out of network, bottleneck and likelihood."""
    conditional: ClassVar[bool] = False
    single_process_reason: ClassVar[str] = ""
    """Why its training steps cannot be split over several processes; "" if they can."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of vaezoo.testing that fail for a good reason: name -> the reason."""
    min_batch_size: int = 1
    """The fewest examples of a training batch: 2 with batch norm."""

    options: Options
    data: DataSpec
    latent_shape: tuple[int, ...]
    likelihood: Likelihood
    loss: nn.Module | None
    """The BaseLoss that `create_model` built for the model."""
    sampler: Sampler | None
    """The prior to fit after training; None if samples are drawn from `prior`."""

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__()
        self.options = options
        self.data = data
        # Not a submodule: the loss's parameters are no parameters of the model.
        object.__setattr__(self, "loss", None)
        self.sampler = None
        self._origin: Tensor
        self.register_buffer("_origin", torch.zeros(()), persistent=False)

    def __repr__(self) -> str:
        """The model in one line; `nn.Module.__repr__(model)` shows its layers."""
        parts = [f"{n} {type(part).__name__}" for n, part in self.named_children()]
        latent = "×".join(map(str, self.latent_shape))
        count = sum(parameter.numel() for parameter in self.parameters())
        return (
            f"{type(self).__name__} of {self.data.domain} {self.data.describe()}: "
            f"latent {latent}, {count:,} parameters ({', '.join(parts)})"
        )

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return self._origin.device

    @abstractmethod
    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """The posterior q(z|x) with event shape `latent_shape`.

        x: [batch, *data.shape], in [0, 1], or standardised if the domain is real. y: class
        numbers, [batch].
        """

    @abstractmethod
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """The likelihood p(x|z) with event shape `data.shape`. z: [batch, *latent_shape]."""

    def prior(self, y: Tensor | None = None) -> Distribution:
        """The prior p(z) of training: a standard Gaussian, unless the model defines another."""
        return standard_normal(self._origin, self.latent_shape)

    def sampling_prior(self, y: Tensor | None = None) -> Distribution:
        """The fitted sampler's distribution in evaluation mode; else, and in training, `prior`.

        y: class numbers, [n]; model and sampler get them only if they are conditional.
        """
        if self.sampler is None or self.training or not self.sampler.is_fitted:
            return self.prior(self.labels(y))
        return self.sampler.distribution(y if self.sampler.conditional else None)

    def density_prior(self, y: Tensor | None = None) -> Distribution:
        """The prior of log p(z): `sampling_prior`, or `prior` where that has no density."""
        return self.sampling_prior(y) if self.prior_has_density else self.prior(self.labels(y))

    @property
    def samples_classes(self) -> bool:
        """Whether samples can be of a given class: the model or its sampler is conditional."""
        return self.conditional or (self.sampler is not None and self.sampler.conditional)

    @property
    def prior_has_density(self) -> bool:
        """Whether p(z) in evaluation has an exact log-density, over the space of the posterior.

        False with some samplers, and where the latents lie on a surface and those of the sampler
        do not: their densities do not compare.
        """
        if self.sampler is None or self.training or not self.sampler.is_fitted:
            return True
        y = torch.zeros(1, dtype=torch.int64, device=self.device)
        own, fitted = self.prior(self.labels(y)), self.sampler.distribution()
        return self.sampler.has_density and hasattr(own, "project") == hasattr(fitted, "project")

    @property
    def last_decoder_layer(self) -> nn.Module:
        """The last layer of its submodule `decoder` that has parameters.

        For the weight of an adversarial term that balances the gradients there (Esser et al. 2021,
        equation 7). OptionError if there is none.
        """
        modules = [] if (decoder := getattr(self, "decoder", None)) is None else decoder.modules()
        for module in reversed([*modules]):
            if next(module.parameters(recurse=False), None) is not None:
                return module
        raise OptionError(f"{type(self).__name__} has no submodule `decoder` with parameters")

    @property
    def codebook(self) -> Codebook | None:
        """The codes that its latents are made of; None if they are no codes."""
        return None

    def forward(self, x: Tensor, y: Tensor | None = None) -> VAEOutput:
        """Encode the batch, draw one sample of each latent, and decode it."""
        y = self.labels(y)
        posterior = self.encode(x, y)
        z = posterior.rsample()
        return VAEOutput(posterior, z, self.density_prior(y), self.decode(z, y))

    def on_train_step(self, step: Tensor) -> None:
        """A hook before each training step; step: its number, a 0-dim int64 tensor on the device.

        A model with a schedule (a temperature) updates its buffer here, so that it stays constant
        in evaluation. Must not read `step` back to the host.
        """
        return

    @property
    def prior_is_fitted(self) -> bool:
        """Whether samples can be drawn: False if the sampler has not been fitted."""
        return self.sampler is None or self.sampler.is_fitted

    @torch.no_grad()
    def fit_sampler(self, batches: Iterable[Batch]) -> None:
        """Fit the sampler, if there is one, to latents of the training set. batches: one pass.

        In evaluation mode: no statistics and no codebook change, and latents do not depend on the
        batch. It is fitted to a sample of each posterior, or to the indices of codes.
        """
        if self.sampler is None:
            return
        training = self.training
        self.eval()
        found, labels = [], []
        for batch in batches:
            posterior = self.encode(batch.x, self.labels(batch.y))
            indices = getattr(posterior, "indices", None)
            found.append(posterior.rsample() if indices is None else indices.int())
            labels.append(batch.y)
        self.train(training)
        known = [y for y in labels if y is not None]
        self.sampler.fit(torch.cat(found), torch.cat(known) if known else None)

    def labels(self, y: Tensor | None) -> Tensor | None:
        """The labels if this model is conditional, else None."""
        return y if self.conditional else None

    @torch.no_grad()
    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, mean: bool = True
    ) -> Tensor:
        """n examples from the model, [n, *data.shape].

        y: class numbers, [n], for conditional models and samplers. temperature: see `sample_prior`.
        mean: the likelihood's mean, else a sample of it.
        """
        z = sample_prior(self.sampling_prior(y), n, temperature)
        if self.sampler is not None:  # it may leave the surface that the latents lie on
            z = project_to_prior(self.prior(self.labels(y)), z)
        likelihood = self.decode(z, self.labels(y))
        return likelihood.mean if mean else likelihood.sample()

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The likelihood's mean at the posterior's `mode`, [batch, *data.shape]."""
        y = self.labels(y)
        return self.decode(mode(self.encode(x, y)), y).mean

    def log_importance_weights(
        self, x: Tensor, y: Tensor | None = None, samples: int = 1
    ) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) for `samples` draws of z, in nats: [samples, batch].

        Burda et al. 2015, equation 8. The mean over samples is an unbiased estimate of the ELBO,
        and log_mean_exp over samples the importance-weighted bound. Gradients flow.
        """
        y = self.labels(y)
        posterior, prior = self.encode(x, y), self.density_prior(y)
        z = posterior.rsample(torch.Size((samples,)))
        return self.log_density_ratio(posterior, prior, z, x, y)

    def log_density_ratio(
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
        # Each example `samples` times, in the order of z's folded dimensions.
        many_x = x.expand(samples, *x.shape).flatten(0, 1)
        many_y = None if y is None else y.expand(samples, *y.shape).flatten(0, 1)
        log_likelihood = self.decode(z.flatten(0, 1), many_y).log_prob(many_x)
        log_ratio = prior.log_prob(z) - posterior.log_prob(z)
        return log_likelihood.view(samples, len(x)) + log_ratio

    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, y: Tensor | None = None, samples: int = 100, chunk_size: int = 1024
    ) -> Tensor:
        """The importance-weighted estimate of log p(x), in nats: [batch].

        A lower bound in expectation that rises with `samples` (Burda et al. 2015, theorem 1).
        chunk_size: how many examples are decoded at once; the estimate does not depend on it.
        """
        y = self.labels(y)
        # Once, not for every chunk: a learned prior may cost more than the decoder.
        posterior, prior = self.encode(x, y), self.density_prior(y)
        step = max(1, chunk_size // max(1, len(x)))
        log_weights = []
        for done in range(0, samples, step):
            z = posterior.rsample(torch.Size((min(step, samples - done),)))
            log_weights.append(self.log_density_ratio(posterior, prior, z, x, y))
        return log_mean_exp(torch.cat(log_weights), dim=0)


class EncoderDecoderVAE(BaseVAE):
    """A VAE of a network, a bottleneck and a likelihood, which define all of it.

    encoder: [batch, *data.shape] -> the bottleneck's parameters. decoder: the latent, as the
    bottleneck gives it -> the likelihood's parameters. Both are the network's for vectors, or for
    a grid where the bottleneck works on one.

    A subclass may give an encoder or a decoder of its own, or another `encode`, `decode`, `prior`.
    """

    parts = ("network", "bottleneck", "likelihood")

    def __init__(
        self,
        options: Options,
        data: DataSpec,
        parts: Parts,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__(options, data)
        network, self.bottleneck, self.likelihood = parts
        self.latent_shape = self.bottleneck.latent_shape
        params, features = self.bottleneck.num_params, self.bottleneck.out_features
        shape, on_grid = self.likelihood.param_shape, bool(self.bottleneck.grid)
        make_encoder = network.grid_encoder if on_grid else network.encoder
        make_decoder = network.grid_decoder if on_grid else network.decoder
        self.encoder = make_encoder(params) if encoder is None else encoder
        self.decoder = make_decoder(features, shape) if decoder is None else decoder

    @property
    def codebook(self) -> Codebook | None:
        return self.bottleneck.codebook

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return self.bottleneck(self.encoder(x))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(self.bottleneck.decoder_input(z)))

    def prior(self, y: Tensor | None = None) -> Distribution:
        return self.bottleneck.prior()

    def on_train_step(self, step: Tensor) -> None:
        self.bottleneck.on_train_step(step)
