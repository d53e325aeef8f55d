"""The options of the network `vit`. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vaezoo_networks.options import CheckpointingOptions


class ViTOptions(CheckpointingOptions):
    """The patches, the transformer, and where its latents are."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"embed_dim": 32, "depth": 1, "num_heads": 4}

    patch_size: int | None = Field(
        None,
        ge=1,
        description="side of a patch in pixels, a divisor of the sides of an image; none: the "
        "smallest for which there are at most 8 patches along a side",
    )
    embed_dim: int = Field(
        128, ge=1, le=1 << 14, description="width of the transformer, a multiple of its heads"
    )
    depth: int = Field(
        4, ge=1, le=256, description="transformer blocks of the encoder, and of the decoder"
    )
    num_heads: int = Field(4, ge=1, le=256, description="heads of each attention")
    positions: Literal["sinusoidal", "learned"] = Field(
        "sinusoidal",
        description="embeddings of the positions of patches: sinusoidal: fixed, of row and column; "
        "learned: parameters",
    )
    latent_tokens: int | None = Field(
        None,
        ge=1,
        le=1 << 14,
        description="number of learned tokens beside the patches that hold the latent, a sequence; "
        "none: the latent is on the grid of patches",
    )

    @model_validator(mode="after")
    def _check_widths(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"--embed-dim {self.embed_dim} is no multiple of --num-heads {self.num_heads}"
            )
        if self.positions == "sinusoidal" and self.embed_dim % 4:
            raise ValueError(
                f"--embed-dim {self.embed_dim}: sinusoidal positions need a multiple of 4; give "
                "another, or --positions learned"
            )
        return self
