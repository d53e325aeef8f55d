"""The plugin's entry. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, ModelSpec, hookimpl


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="cvae",
            other_names=("conditionalvae", "condvae"),
            target="vaezoo_conditional.model:ConditionalVAE",
            options="vaezoo_conditional.options:ConditionalOptions",
            summary="Conditional VAE: encoder, decoder and prior get the class label",
            paper="Sohn, Lee & Yan 2015, Learning Structured Output Representation, NeurIPS",
            tags=("elbo", "importance", "labels", "gaussian"),
            parts={"network": "conv", "bottleneck": "gaussian", "likelihood": "auto"},
            input_spec=InputSpec(min_size=8, ndims=(0, 1, 2, 3), labels=True),
        )
    )
