"""`diffusers.VQModel`: the model `vqgan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, StrictBool, StrictInt, model_validator
from torch import Tensor

from vaezoo import BaseVAE
from vaezoo.errors import RunError
from vaezoo.runs.run import Run
from vaezoo_discrete.options import MAX_CODES

from .config import Count, LevelsConfig, Options


class VQModelConfig(LevelsConfig):
    """config.json of a VQModel.

    Its codebook learns by the gradient, and no code is reset: a run that is trained further starts
    with the codes that were imported.
    """

    class_name: ClassVar[str] = "VQModel"
    model_name: ClassVar[str] = "vqgan"
    bottleneck_name: ClassVar[str] = "vq"
    renamed: ClassVar[Mapping[str, str]] = {
        **LevelsConfig.renamed,
        "quantize.embedding.weight": "bottleneck.quantizer.codebook",
    }
    kept: ClassVar[tuple[str, ...]] = (*LevelsConfig.kept, "lookup_from_codebook")

    latent_channels: Count = 3
    force_upcast: StrictBool = False
    num_vq_embeddings: Annotated[StrictInt, Field(ge=2, le=MAX_CODES)] = 256
    vq_embed_dim: Count | None = None
    norm_type: Literal["group"] = "group"
    lookup_from_codebook: StrictBool = False

    @model_validator(mode="after")
    def _check_codes(self) -> Self:
        if self.vq_embed_dim not in (None, self.latent_channels):
            raise ValueError(
                f"vq_embed_dim {self.vq_embed_dim} differs from latent_channels "
                f"{self.latent_channels}: here a code has as many values as the encoder gives"
            )
        return self

    @staticmethod
    def parts_of(model: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        return (
            lambda x: model.encode(2.0 * x - 1.0).latents,
            lambda z: model.decode(z).sample,
        )

    @staticmethod
    def moments(params: Tensor) -> tuple[Tensor, Tensor]:
        """The features before they become codes, which diffusion models are trained on."""
        return params, torch.zeros_like(params)

    def example_latents(
        self, model: BaseVAE, grid: tuple[int, ...], generator: torch.Generator
    ) -> Tensor:
        """Random codes: the decoder of diffusers replaces its input by the nearest ones."""
        assert model.codebook is not None
        indices = torch.randint(self.num_vq_embeddings, grid, generator=generator)
        return model.codebook.indices_to_codes(indices)

    def options(self) -> Options:
        return {
            "network": {**self.network_options(), "quant_conv": True, "post_quant_conv": True},
            "bottleneck": {
                "codes": self.num_vq_embeddings,
                "code_dim": self.latent_channels,
                "codebook": "gradient",
                "dead_code_steps": None,
            },
        }

    @classmethod
    def of_run(cls, run: Run) -> Self:
        network: Any = run.config.options["network"]
        bottleneck: Any = run.config.options["bottleneck"]
        if not (network.quant_conv and network.post_quant_conv):
            raise RunError(
                "a VQModel of diffusers has convolutions before and after its codes: train "
                "with --quant-conv --post-quant-conv"
            )
        if bottleneck.cosine:
            raise RunError("diffusers compares codes by their distance: train with --no-cosine")
        return cls(
            **cls.fields_of(run),
            latent_channels=bottleneck.code_dim,
            num_vq_embeddings=bottleneck.codes,
        )
