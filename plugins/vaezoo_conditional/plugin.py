"""What the plugin brings, and its options. No torch here: names and help are read without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from vaezoo import GaussianOptions, InputSpec, ModelSpec, hookimpl


class ConditionalOptions(GaussianOptions):
    label_dim: int = Field(
        16, ge=1, le=10_000, description="numbers that encoder and decoder are told a class by"
    )
    prior: Literal["learned", "standard"] = Field(
        "learned",
        description="of the latent given the class: learned: a diagonal Gaussian for each, or the "
        "standard one for all",
    )


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="cvae",
            target="vaezoo_conditional.model:ConditionalVAE",
            options="vaezoo_conditional.plugin:ConditionalOptions",
            summary="Conditional VAE: encoder, decoder and, if asked, prior know the class",
            paper="Sohn, Lee & Yan 2015, Learning Structured Output Representation, NeurIPS",
            tags=("elbo", "importance", "labels", "gaussian"),
            input_spec=InputSpec(min_size=8, vectors=True, labels=True),
        )
    )
