"""`diffusers.AutoencoderDC`: the model `dc_ae`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import torch
from pydantic import Field, StrictBool, StrictInt, model_validator
from torch import Tensor

from vaezoo.runs.run import Run

from .config import Count, ModelConfig, Number, Options, check_grid

Block = Literal["ResBlock", "EfficientViTBlock"]
Norm = Literal["rms_norm", "batch_norm"]
Activation = Literal["silu", "relu"]
Layers = tuple[Annotated[StrictInt, Field(ge=0, le=64)], ...]
Widths = Annotated[tuple[Count, ...], Field(min_length=2, max_length=16)]
Scales = tuple[tuple[Count, ...], ...]
T = TypeVar("T")

_ATTENTION: Block = "EfficientViTBlock"


class AutoencoderDCConfig(ModelConfig):
    """config.json of an AutoencoderDC. A field with one value stands for all levels."""

    class_name: ClassVar[str] = "AutoencoderDC"
    model_name: ClassVar[str] = "dc_ae"
    network_name: ClassVar[str] = "dc_ae"
    bottleneck_name: ClassVar[str] = "point"
    tolerance: ClassVar[float] = 1e-4
    """Attention and norms are computed in float32, here and there."""

    latent_channels: Count = 32
    attention_head_dim: Count = 32
    encoder_block_types: Block | tuple[Block, ...] = "ResBlock"
    decoder_block_types: Block | tuple[Block, ...] = "ResBlock"
    encoder_block_out_channels: Widths = (128, 256, 512, 512, 1024, 1024)
    decoder_block_out_channels: Widths = (128, 256, 512, 512, 1024, 1024)
    encoder_layers_per_block: Layers = (2, 2, 2, 3, 3, 3)
    decoder_layers_per_block: Layers = (3, 3, 3, 3, 3, 3)
    encoder_qkv_multiscales: Scales = ((), (), (), (5,), (5,), (5,))
    decoder_qkv_multiscales: Scales = ((), (), (), (5,), (5,), (5,))
    upsample_block_type: Literal["pixel_shuffle", "interpolate"] = "pixel_shuffle"
    downsample_block_type: Literal["pixel_unshuffle", "Conv", "conv"] = "pixel_unshuffle"
    decoder_norm_types: Norm | tuple[Norm, ...] = "rms_norm"
    decoder_act_fns: Activation | tuple[Activation, ...] = "silu"
    encoder_out_shortcut: StrictBool = True
    decoder_in_shortcut: StrictBool = True
    decoder_conv_act_fn: Literal["relu"] = "relu"
    scaling_factor: Number = 1.0

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        widths = self.encoder_block_out_channels
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(widths):
                raise ValueError(f"{len(value)} {name}, and {len(widths)} levels of the encoder")
        kinds = self.levels(self.encoder_block_types)
        if widths != self.decoder_block_out_channels or kinds != self.levels(
            self.decoder_block_types
        ):
            raise ValueError(
                "encoder and decoder have other widths or blocks: here they share them"
            )
        if not (self.encoder_out_shortcut and self.decoder_in_shortcut):
            raise ValueError("encoder_out_shortcut or decoder_in_shortcut is false: here both are")
        counts = zip(self.encoder_layers_per_block, self.decoder_layers_per_block, strict=True)
        steps = [
            (4 * above, below)
            for above, below, count in zip(widths, widths[1:], counts, strict=False)
            if any(count)
        ]
        for above, below in (*steps, (widths[-1], self.latent_channels)):
            if above % below:
                raise ValueError(f"a shortcut from {above} to {below} channels has no equal parts")
        pairs = zip(
            kinds,
            self.levels(self.decoder_norm_types),
            self.levels(self.decoder_act_fns),
            strict=True,
        )
        for kind, norm, activation in pairs:
            fits = norm == "rms_norm" or kind != _ATTENTION
            if not fits or (
                kind != _ATTENTION and (norm == "batch_norm") != (activation == "relu")
            ):
                raise ValueError(
                    f"decoder_norm_types and decoder_act_fns: a {kind} with {norm} and "
                    f"{activation} is unknown here"
                )
        if len({*self._scales()}) > 1:
            raise ValueError("qkv_multiscales differ between levels: here they are the same")
        return self

    def levels(self, value: T | tuple[T, ...]) -> tuple[T, ...]:
        """A value for each level."""
        if isinstance(value, tuple):
            return value
        return (value,) * len(self.encoder_block_out_channels)

    def _scales(self) -> list[tuple[int, ...]]:
        """The scales of attention of each level that has it, in encoder and decoder."""
        found = (self.encoder_qkv_multiscales, self.decoder_qkv_multiscales)
        return [one[level] for one in found for level in self.attention_levels]

    @property
    def attention_levels(self) -> tuple[int, ...]:
        """The levels of EfficientViT blocks, from 0, the full size."""
        kinds = enumerate(self.levels(self.encoder_block_types))
        return tuple(level for level, kind in kinds if kind == _ATTENTION)

    @property
    def image_size(self) -> None:
        return None

    @property
    def factor(self) -> int:
        return int(2 ** (len(self.encoder_block_out_channels) - 1))

    @staticmethod
    def parts_of(model: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        return (
            lambda x: model.encode(2.0 * x - 1.0).latent,
            lambda z: model.decode(z).sample,
        )

    @staticmethod
    def moments(params: Tensor) -> tuple[Tensor, Tensor]:
        return params, torch.zeros_like(params)

    def options(self) -> Options:
        norms = enumerate(self.levels(self.decoder_norm_types))
        return {
            "network": {
                "hidden": self.encoder_block_out_channels,
                "encoder_layers": self.encoder_layers_per_block,
                "decoder_layers": self.decoder_layers_per_block,
                "attention_levels": self.attention_levels,
                "head_dim": self.attention_head_dim,
                "attention_scales": next(iter(self._scales()), ()),
                "downsample": self.downsample_block_type.lower(),
                "upsample": self.upsample_block_type,
                "batch_norm_levels": tuple(n for n, norm in norms if norm == "batch_norm"),
            },
            "bottleneck": {"latent_dim": self.latent_channels, "latent_grid": True},
        }

    @classmethod
    def of_run(cls, run: Run) -> Self:
        check_grid(run)
        network: Any = run.config.options["network"]
        bottleneck: Any = run.config.options["bottleneck"]
        attention, batch_norm = network.attention(), network.batch_norm_levels
        levels = range(len(network.hidden))
        blocks = [_ATTENTION if n in attention else "ResBlock" for n in levels]
        scales = [network.attention_scales if n in attention else () for n in levels]
        fields = {
            "in_channels": run.data_spec.channels,
            "latent_channels": bottleneck.num_latents,
            "attention_head_dim": network.head_dim,
            "encoder_block_types": blocks,
            "decoder_block_types": blocks,
            "encoder_block_out_channels": network.hidden,
            "decoder_block_out_channels": network.hidden,
            "encoder_layers_per_block": network.layers(network.encoder_layers),
            "decoder_layers_per_block": network.layers(network.decoder_layers),
            "encoder_qkv_multiscales": scales,
            "decoder_qkv_multiscales": scales,
            "upsample_block_type": network.upsample,
            "downsample_block_type": network.downsample.replace("conv", "Conv"),
            "decoder_norm_types": ["batch_norm" if n in batch_norm else "rms_norm" for n in levels],
            "decoder_act_fns": ["relu" if n in batch_norm else "silu" for n in levels],
        }
        return cls.parse(fields, "the model of this run is none of diffusers")
