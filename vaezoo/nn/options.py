"""Options of the encoder and decoder networks. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from vaezoo.options import Options

NetworkName = Literal["conv", "resnet", "mlp", "gated_mlp"]


class BackboneOptions(Options):
    """The network of encoder and decoder, and the size of the latent."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"latent_dim": 4, "hidden": (16, 16)}

    latent_dim: int = Field(128, ge=1, description="size of the latent vector")
    network: NetworkName = Field(
        "conv",
        description="network of encoder and decoder: conv: strided convolutions; resnet: with "
        "residual blocks; mlp: dense layers, for vectors too; gated_mlp: gated dense layers",
    )
    hidden: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        min_length=1,
        description="conv, resnet: channels of each level, which halves the image; mlp: widths "
        "of the layers, from the data to the latent; none: 32,64,128,256,512, or 512,256 for mlp",
    )

    def hidden_sizes(self) -> tuple[int, ...]:
        """The channels or widths: `hidden`, or the network's default if it is none."""
        if self.hidden is not None:
            return self.hidden
        return (512, 256) if "mlp" in self.network else (32, 64, 128, 256, 512)
