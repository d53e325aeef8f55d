"""What config.json of an autoencoder of diffusers says, checked, as options of vaezoo and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
    model_validator,
)
from torch import Tensor

from vaezoo import BaseVAE
from vaezoo.errors import RunError
from vaezoo.runs.run import Run

from .weights import to_theirs

Count = Annotated[StrictInt, Field(ge=1, lt=2**31)]
Number = StrictFloat | StrictInt
Options = dict[str, dict[str, Any]]
"""The options of a run by section; in each part also its name."""


def check_grid(run: Run) -> None:
    """RunError unless the latent of a run is a grid."""
    bottleneck: Any = run.config.options["bottleneck"]
    if not bottleneck.latent_grid:
        raise RunError(
            "the latent of this run is one vector, and that of diffusers a grid: train with "
            "--latent-grid"
        )


_PLAIN, _ATTENTION = "", "Attn"
_MOST_LEVELS = 16


class ModelConfig(BaseModel):
    """config.json of a class of diffusers that is a model here.

    Fields whose names begin with `_` are about the file, and are left out. An unknown field is an
    error: it may change what the model computes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    class_name: ClassVar[str]
    model_name: ClassVar[str]
    """The model of vaezoo that this is."""
    network_name: ClassVar[str]
    bottleneck_name: ClassVar[str]
    """The parts by which its runs are known."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Beginnings of the names of its weights, and what they are in a run; others are the same."""
    kept: ClassVar[tuple[str, ...]] = ("scaling_factor",)
    """The fields that change nothing of what encoder and decoder compute."""
    tolerance: ClassVar[float] = 1e-8
    """Largest allowed difference in float64, relative to the largest value if that is above 1.

    In float32 a large model is 2e-5 from its own values in float64, by rounding alone: another
    constant of a norm could not be told from that.
    """

    in_channels: Count = 3
    latent_channels: Count
    scaling_factor: Number

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int] | None:
        """The height and the width that it was trained on, if it is known."""

    @property
    @abstractmethod
    def factor(self) -> int:
        """The sides of an image divided by those of its latent."""

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: Path | str) -> Self:
        """The values of a file. RunError, which names the file, the field and what is wrong."""
        fields = {name: value for name, value in values.items() if not name.startswith("_")}
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"][:2])
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            reason = "this field is unknown, and may change what the model computes"
        shown = repr(first["input"])
        if field and first["type"] not in ("extra_forbidden", "missing"):
            reason = f"{reason}, not {shown if len(shown) < 60 else shown[:50] + '...'}"
        raise RunError(f"{where}: {f'{field:.80}: ' if field else ''}{reason}")

    @staticmethod
    @abstractmethod
    def parts_of(model: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The encoder and the decoder of a model of diffusers, as those of a run.

        From examples in [0, 1] to the parameters of the posterior; from latents to values in
        [-1, 1].
        """

    @staticmethod
    @abstractmethod
    def moments(params: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances of the latents, from what the encoder of a run gives."""

    def example_latents(
        self, model: BaseVAE, grid: tuple[int, ...], generator: torch.Generator
    ) -> Tensor:
        """Latents to compare decoders with: grid is [batch, height, width]."""
        batch, *sides = grid
        return torch.randn(batch, self.latent_channels, *sides, generator=generator)

    def weights_of(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights that a file of diffusers has, out of the state of a run's model."""
        begins = ("encoder.", "decoder.", *self.renamed.values())
        own = {name: tensor for name, tensor in state.items() if name.startswith(begins)}
        return to_theirs(own, self.renamed)

    @abstractmethod
    def options(self) -> Options:
        """The options of the parts of the model."""

    @classmethod
    @abstractmethod
    def of_run(cls, run: Run) -> Self:
        """What describes the model of a run with this network and this bottleneck.

        RunError, in one line, if it is another function.
        """

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return dict(
            sorted({"_class_name": self.class_name, **self.model_dump(mode="json")}.items())
        )


class LevelsConfig(ModelConfig):
    """The fields that AutoencoderKL and VQModel share; the defaults are those of diffusers."""

    network_name: ClassVar[str] = "ldm"
    renamed: ClassVar[Mapping[str, str]] = {
        "quant_conv.": "encoder.quant_conv.",
        "post_quant_conv.": "decoder.post_quant_conv.",
    }
    kept: ClassVar[tuple[str, ...]] = (*ModelConfig.kept, "act_fn", "sample_size", "force_upcast")

    out_channels: Count = 3
    down_block_types: tuple[Literal["DownEncoderBlock2D", "AttnDownEncoderBlock2D"], ...] = (
        "DownEncoderBlock2D",
    )
    up_block_types: tuple[Literal["UpDecoderBlock2D", "AttnUpDecoderBlock2D"], ...] = (
        "UpDecoderBlock2D",
    )
    block_out_channels: tuple[Count, ...] = Field((64,), min_length=1, max_length=_MOST_LEVELS)
    layers_per_block: Annotated[StrictInt, Field(ge=1, le=64)] = 1
    act_fn: Literal["silu", "swish"] = "silu"  # two names of one function
    norm_num_groups: Count = 32
    sample_size: Count | tuple[Count, Count] = 32
    scaling_factor: Number = 0.18215
    force_upcast: StrictBool
    mid_block_add_attention: StrictBool = True

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        widths, groups = self.block_out_channels, self.norm_num_groups
        if self.in_channels != self.out_channels:
            raise ValueError(
                f"out_channels {self.out_channels} differ from in_channels {self.in_channels}: "
                "a model of vaezoo reconstructs what it gets"
            )
        if uneven := [width for width in widths if width % groups]:
            raise ValueError(
                f"norm_num_groups {groups} do not divide {uneven[0]} of block_out_channels"
            )
        for name in ("down_block_types", "up_block_types"):
            if (count := len(getattr(self, name))) != len(widths):
                raise ValueError(f"{count} {name}, and {len(widths)} block_out_channels")
        if self.up_block_types != tuple(
            f"{_ATTENTION if level in self.attention_levels else _PLAIN}UpDecoderBlock2D"
            for level in reversed(range(len(widths)))
        ):
            raise ValueError(
                "up_block_types have attention at other levels than down_block_types: here both "
                "have it at the same"
            )
        return self

    @property
    def attention_levels(self) -> tuple[int, ...]:
        """The levels with attention after each residual block, from 0, the full size."""
        kinds = enumerate(self.down_block_types)
        return tuple(level for level, kind in kinds if kind.startswith(_ATTENTION))

    @property
    def image_size(self) -> tuple[int, int]:
        size = self.sample_size
        return (size, size) if isinstance(size, int) else size

    @property
    def factor(self) -> int:
        return int(2 ** (len(self.block_out_channels) - 1))

    def network_options(self) -> dict[str, Any]:
        """The options of the network `ldm`."""
        return {
            "hidden": self.block_out_channels,
            "layers_per_block": self.layers_per_block,
            "norm_groups": self.norm_num_groups,
            "attention": self.mid_block_add_attention,
            "attention_levels": self.attention_levels,
        }

    @staticmethod
    def fields_of(run: Run) -> dict[str, Any]:
        """The shared fields of a run whose network is `ldm`."""
        network: Any = run.config.options["network"]
        data = run.data_spec
        levels = range(len(network.hidden))
        kinds = [_ATTENTION if n in network.attention_levels else _PLAIN for n in levels]
        square = data.height == data.width
        return {
            "in_channels": data.channels,
            "out_channels": data.channels,
            "down_block_types": [f"{kind}DownEncoderBlock2D" for kind in kinds],
            "up_block_types": [f"{kind}UpDecoderBlock2D" for kind in reversed(kinds)],
            "block_out_channels": network.hidden,
            "layers_per_block": network.layers_per_block,
            "norm_num_groups": network.norm_groups,
            "mid_block_add_attention": network.attention,
            "sample_size": data.height if square else data.spatial_shape,
        }
