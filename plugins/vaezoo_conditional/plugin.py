"""The plugin's entry and its options. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from vaezoo import InputSpec, ModelSpec, Options, hookimpl


class ConditionalOptions(Options):
    """The size of the label embedding, and the kind of prior."""

    label_dim: int = Field(
        16, ge=1, le=10_000, description="size of the label embedding of encoder and decoder"
    )
    prior: Literal["learned", "standard"] = Field(
        "learned",
        description="learned: a diagonal Gaussian for each class; standard: a standard Gaussian "
        "for all classes",
    )


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="cvae",
            other_names=("conditionalvae", "condvae"),
            target="vaezoo_conditional.model:ConditionalVAE",
            options="vaezoo_conditional.plugin:ConditionalOptions",
            summary="Conditional VAE: encoder, decoder and prior get the class label",
            paper="Sohn, Lee & Yan 2015, Learning Structured Output Representation, NeurIPS",
            tags=("elbo", "importance", "labels", "gaussian"),
            parts={"network": "conv", "bottleneck": "gaussian", "likelihood": "auto"},
            input_spec=InputSpec(min_size=8, ndims=(0, 1, 2, 3), labels=True),
        )
    )
