"""One part of each kind that keeps the contract, and others that each break it in one place."""

from __future__ import annotations

import gc
import math

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Normal

from vaezoo import (
    Bottleneck,
    DataSpec,
    EncoderDecoderVAE,
    InputSpec,
    LatentSpec,
    Likelihood,
    Network,
    Options,
    Sampler,
)
from vaezoo.models.distributions import (
    Delta,
    diagonal_normal,
    gaussian_from_params,
    independent,
    to_float32,
)


class RightNetwork(Network):
    """Dense layers, and a grid of 4 positions along each dimension but for vectors."""

    tags = ("grid",)
    input_spec = InputSpec(ndims=(0, 1, 2), min_size=4)

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        self.latent_grid = (4,) * data.ndim

    def encoder(self, out_features: int) -> nn.Module:
        return nn.Sequential(*self.body(), nn.Linear(16, out_features))

    def body(self) -> list[nn.Module]:
        return [nn.Flatten(), nn.Linear(self.data.numel, 16), nn.Tanh()]

    def decoder(self, in_features: int, out_shape: tuple[int, ...]) -> nn.Module:
        last = nn.Linear(16, math.prod(out_shape))
        return nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, 16), nn.Tanh(), last, nn.Unflatten(1, out_shape)
        )

    def grid_encoder(self, channels: int) -> nn.Module:
        if not self.latent_grid:
            return super().grid_encoder(channels)
        shape = (channels, *self.latent_grid)
        return nn.Sequential(self.encoder(math.prod(shape)), nn.Unflatten(1, shape))

    def grid_decoder(self, channels: int, out_shape: tuple[int, ...]) -> nn.Module:
        return self.decoder(channels * math.prod(self.latent_grid), out_shape)


class OwnShape(RightNetwork):
    """Decodes to the shape of the data, whatever is asked for."""

    def decoder(self, in_features: int, out_shape: tuple[int, ...]) -> nn.Module:
        return super().decoder(in_features, self.data.shape)

    def grid_decoder(self, channels: int, out_shape: tuple[int, ...]) -> nn.Module:
        return super().decoder(channels * math.prod(self.latent_grid), out_shape)


class OtherGrid(RightNetwork):
    def grid_encoder(self, channels: int) -> nn.Module:
        if not self.latent_grid:
            return super().grid_encoder(channels)
        shape = (channels, *[2] * self.data.ndim)
        return nn.Sequential(self.encoder(math.prod(shape)), nn.Unflatten(1, shape))


class NoTag(RightNetwork):
    tags = ()


class OneBody(RightNetwork):
    """Builds its layers once, for all encoders."""

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        self.layers = super().body()

    def body(self) -> list[nn.Module]:
        return self.layers


class ImagesOnly(RightNetwork):
    """Claims signals, and takes images only."""

    def body(self) -> list[nn.Module]:
        channels, *sides = self.data.shape
        if not sides:
            return super().body()
        return [nn.Conv2d(channels, channels, 1), *super().body()]


class RightBottleneck(Bottleneck):
    """A Gaussian of two values, or of two channels of a grid."""

    def __init__(self, options: Options, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options, grid)
        self.num_params, self.latent_shape = 4, (2, *self.grid)

    def forward(self, params: Tensor) -> Distribution:
        return gaussian_from_params(params)


class BatchOfLatents(RightBottleneck):
    """Leaves the dimensions of a latent in the batch."""

    def forward(self, params: Tensor) -> Distribution:
        loc, raw = to_float32(params).chunk(2, 1)
        return Normal(loc, torch.exp(raw), validate_args=False)


class VectorOfGrid(RightBottleneck):
    """Gives the decoder a vector where it gets a grid."""

    def decoder_input(self, z: Tensor) -> Tensor:
        return z.flatten(1)


class AsksForMore(RightBottleneck):
    """Uses four of the six values that it asks for."""

    def __init__(self, options: Options, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options, grid)
        self.num_params = 6

    def forward(self, params: Tensor) -> Distribution:
        return super().forward(params[:, :4])


class NoDensity(RightBottleneck):
    """Claims an ELBO, and its posterior is a point."""

    def forward(self, params: Tensor) -> Distribution:
        return Delta(to_float32(params[:, :2] + params[:, 2:]), len(self.latent_shape))


class RightLikelihood(Likelihood):
    """A Bernoulli, or a Gaussian with a scale for each value."""

    domains = ("binary", "real")
    normalised_on = ("binary", "real")

    @property
    def param_shape(self) -> tuple[int, ...]:
        return (2 * self.data.channels, *self.data.shape[1:])

    def forward(self, params: Tensor) -> Distribution:
        first, second = to_float32(params).chunk(2, 1)
        event = params.dim() - 1
        if self.data.domain == "binary":
            return independent(Bernoulli(logits=first + second, validate_args=False), event)
        return self.gaussian(first, 0.1 + second.sigmoid(), event)

    def gaussian(self, mean: Tensor, scale: Tensor, event: int) -> Distribution:
        std = self.data.statistics.std if self.data.statistics else (1.0,) * self.data.channels
        return Rescaled(mean, scale, torch.tensor(std).view(-1, *[1] * (event - 1)), event)


class Rescaled(torch.distributions.Independent[Normal]):
    """A Gaussian whose density is that of the values times std."""

    def __init__(self, mean: Tensor, scale: Tensor, std: Tensor, event: int) -> None:
        super().__init__(Normal(mean, scale, validate_args=False), event, validate_args=False)
        self.log_det = std.log().expand(mean.shape[1:]).sum()

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - self.log_det


class NoLogDet(RightLikelihood):
    def gaussian(self, mean: Tensor, scale: Tensor, event: int) -> Distribution:
        return diagonal_normal(mean, scale, event)


class EachValue(RightLikelihood):
    """Leaves the values of an example in the batch."""

    def forward(self, params: Tensor) -> Distribution:
        return super().forward(params).base_dist  # type: ignore[attr-defined]


class OneParameter(RightLikelihood):
    """Says that it needs a parameter for each value, and needs two."""

    @property
    def param_shape(self) -> tuple[int, ...]:
        return self.data.shape

    def forward(self, params: Tensor) -> Distribution:
        return super().forward(torch.cat([params, params], 1)[:, : self.data.channels])


class PastOneMean(RightLikelihood):
    """A Gaussian around what the decoder gives, also for values in [0, 1]."""

    domains = ("unit",)
    normalised_on = ("unit",)


class BetweenLevels(RightLikelihood):
    """Says that it is of 256 levels, and draws from a density."""

    domains = ("unit",)
    normalised_on = ("unit",)
    is_discrete = True

    def gaussian(self, mean: Tensor, scale: Tensor, event: int) -> Distribution:
        return diagonal_normal(mean.sigmoid(), 0.1 * scale, event)


class RightSampler(Sampler):
    """A diagonal Gaussian of the mean and the variance of the latents."""

    def __init__(self, options: Options, latent: LatentSpec) -> None:
        super().__init__(options, latent)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(latent.shape))
        self.register_buffer("std", torch.ones(latent.shape))

    @property
    def is_fitted(self) -> bool:
        return bool(self.mean.any())

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        self.mean.copy_(latents.mean(0))
        self.std.copy_(latents.std(0))

    def distribution(self, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(self.mean, self.std, self.mean.dim())


class Grows(RightSampler):
    """Has a buffer after fitting that it does not have before."""

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        super().fit(latents, y)
        self.register_buffer("count", torch.tensor(len(latents)))


class ForgetsThatItIsFitted(RightSampler):
    def __init__(self, options: Options, latent: LatentSpec) -> None:
        super().__init__(options, latent)
        self.done = False

    @property
    def is_fitted(self) -> bool:
        return self.done

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        super().fit(latents, y)
        self.done = True


class BatchOfValues(RightSampler):
    def distribution(self, y: Tensor | None = None) -> Distribution:
        return Normal(self.mean, self.std, validate_args=False)


class ChangesTheModel(RightSampler):
    """Finds the model that it belongs to, and moves its weights."""

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        super().fit(latents, y)
        for found in gc.get_objects():
            if type(found) is EncoderDecoderVAE and found.sampler is self:
                next(found.encoder.parameters()).data.add_(1)


class IgnoresLatents(RightSampler):
    """Another distribution than that of the latents."""

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        super().fit(latents + 30, y)


class OneClassOnly(RightSampler):
    """Says that it takes classes, and has one distribution for all of them."""

    conditional = True
