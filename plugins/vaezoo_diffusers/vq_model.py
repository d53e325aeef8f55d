"""`diffusers.VQModel`: the model `vqgan`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, StrictBool, StrictInt
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
        code_dim = self.vq_embed_dim or self.latent_channels
        differs = code_dim != self.latent_channels
        return {
            "network": {
                **self.network_options(),
                "quant_conv": True,
                "post_quant_conv": True,
                "quant_width": self.latent_channels if differs else None,
            },
            "bottleneck": {
                "codes": self.num_vq_embeddings,
                "code_dim": code_dim,
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
            latent_channels=network.quant_width or bottleneck.code_dim,
            vq_embed_dim=bottleneck.code_dim if network.quant_width else None,
            num_vq_embeddings=bottleneck.codes,
        )
