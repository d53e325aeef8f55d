"""The options of the adversarial losses. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from vaezoo import Options

Widths = tuple[Annotated[int, Field(ge=1)], ...]


class DiscriminatorOptions(Options):
    """Options of the optimizer of a discriminator."""

    discriminator_lr_scale: float = Field(
        1.0, gt=0, description="the discriminator's learning rate, as a multiple of --lr"
    )
    discriminator_beta1: float = Field(
        0.5, ge=0, lt=1, description="Adam's beta1 in the adversarial phases"
    )
    discriminator_beta2: float = Field(
        0.999, ge=0, lt=1, description="Adam's beta2 in the adversarial phases"
    )

    def betas(self) -> tuple[float, float]:
        return self.discriminator_beta1, self.discriminator_beta2


class FactorVAEOptions(DiscriminatorOptions):
    test_defaults: ClassVar[Mapping[str, Any]] = {"discriminator_hidden": (32, 32)}

    discriminator_beta2: float = Field(
        0.9, ge=0, lt=1, description="Adam's beta2 in the discriminator's phase"
    )
    gamma: float = Field(
        35.0, ge=0, description="weight of the total correlation, beside its part in the rate"
    )
    discriminator_hidden: Widths = Field(
        (1000,) * 6, min_length=1, description="hidden sizes of the discriminator"
    )


class AAEOptions(DiscriminatorOptions):
    test_defaults: ClassVar[Mapping[str, Any]] = {"discriminator_hidden": (32, 32)}

    discriminator_hidden: Widths = Field(
        (1000, 1000), min_length=1, description="hidden sizes of the discriminator"
    )
    encoder_lr_scale: float = Field(
        0.5, gt=0, description="learning rate of the phase `encoder`, as a multiple of --lr"
    )


class VAEGANOptions(DiscriminatorOptions):
    test_defaults: ClassVar[Mapping[str, Any]] = {
        "discriminator_hidden": (8, 16, 16),
        "discriminator_features": 32,
        "lr_scale": 1.0,
        # The discriminator soon memorises eight examples. With 0.001 the decoder then gets so
        # little gradient of the reconstruction that rounding decides whether it learns them.
        "gamma": 0.1,
    }

    discriminator_beta1: float = Field(
        0.0, ge=0, lt=1, description="Adam's beta1 in the adversarial phases; 0: RMSProp"
    )
    discriminator_beta2: float = Field(
        0.9, ge=0, lt=1, description="Adam's beta2 in the adversarial phases"
    )
    lr_scale: float = Field(
        0.1,
        gt=0,
        description="learning rate of all three phases, as a multiple of --lr; at 1 samples often "
        "collapse before the discriminator has learned anything",
    )
    gamma: float = Field(
        1e-3, ge=0, description="weight of reconstruction against the GAN loss, for the decoder"
    )
    generator_loss: Literal["minimax", "non_saturating"] = Field(
        "minimax",
        description="minimax: the decoder maximises the discriminator's loss; non_saturating: it "
        "minimises -log D, whose gradient does not vanish when the discriminator is certain",
    )
    discriminator_hidden: Widths = Field(
        (16, 32, 64, 64),
        min_length=2,
        description="channels of the discriminator's convolutions; all but the first halve the "
        "image, and the last gives the features that are compared",
    )
    discriminator_features: int = Field(
        64, ge=1, description="size of the discriminator's dense layer"
    )
