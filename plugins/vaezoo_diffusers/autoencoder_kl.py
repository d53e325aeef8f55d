"""`diffusers.AutoencoderKL`: the model `autoencoder_kl`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

from pydantic import StrictBool
from torch import Tensor

from vaezoo.errors import RunError
from vaezoo.runs.run import Run

from .config import Count, LevelsConfig, Number, Options, check_grid

_LOGVAR_RANGE = (-30.0, 20.0)
"""The log-variances of diffusers are clamped to it."""


class AutoencoderKLConfig(LevelsConfig):
    """config.json of an AutoencoderKL."""

    class_name: ClassVar[str] = "AutoencoderKL"
    model_name: ClassVar[str] = "autoencoder_kl"
    bottleneck_name: ClassVar[str] = "gaussian"
    kept: ClassVar[tuple[str, ...]] = (
        *LevelsConfig.kept,
        "shift_factor",
        "latents_mean",
        "latents_std",
    )

    latent_channels: Count = 4
    force_upcast: StrictBool = True
    shift_factor: Number | None = None
    latents_mean: tuple[Number, ...] | None = None
    latents_std: tuple[Number, ...] | None = None
    use_quant_conv: StrictBool = True
    use_post_quant_conv: StrictBool = True

    @staticmethod
    def parts_of(model: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        return (
            lambda x: model.encode(2.0 * x - 1.0).latent_dist.parameters,
            lambda z: model.decode(z).sample,
        )

    @staticmethod
    def moments(params: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = params.chunk(2, dim=1)
        return mean, logvar.clamp(*_LOGVAR_RANGE).exp()

    def options(self) -> Options:
        return {
            "network": {
                **self.network_options(),
                "quant_conv": self.use_quant_conv,
                "post_quant_conv": self.use_post_quant_conv,
            },
            "bottleneck": {
                "latent_dim": self.latent_channels,
                "latent_grid": True,
                "logvar_range": _LOGVAR_RANGE,
            },
        }

    @classmethod
    def of_run(cls, run: Run) -> Self:
        network: Any = run.config.options["network"]
        bottleneck: Any = run.config.options["bottleneck"]
        check_grid(run)
        if network.quant_width is not None:
            raise RunError(
                "the convolutions beside the latent of an AutoencoderKL do not change the number "
                "of channels: train without --quant-width"
            )
        if bottleneck.logvar_range != _LOGVAR_RANGE:
            raise RunError(
                "diffusers clamps log-variances to -30,20, and this run to "
                f"{','.join(f'{limit:g}' for limit in bottleneck.logvar_range)}: train with "
                "--logvar-range=-30,20"
            )
        return cls(
            **cls.fields_of(run),
            latent_channels=bottleneck.num_latents,
            use_quant_conv=network.quant_conv,
            use_post_quant_conv=network.post_quant_conv,
        )
