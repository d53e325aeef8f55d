"""Options of the objectives that own a critic. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from vaezoo import Options

Widths = tuple[Annotated[int, Field(ge=1)], ...]


class CriticOptions(Options):
    critic_lr_factor: float = Field(
        1.0, gt=0, description="the critic's learning rate, as a multiple of --lr"
    )
    critic_beta1: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="decay of Adam's gradients in the phases that the critic drives",
    )
    critic_beta2: float = Field(
        0.999, ge=0, lt=1, description="decay of Adam's squared gradients in these phases"
    )

    def betas(self) -> tuple[float, float]:
        """Both decay rates, as a phase takes them."""
        return self.critic_beta1, self.critic_beta2


class FactorOptions(CriticOptions):
    test_defaults: ClassVar[Mapping[str, Any]] = {"critic_hidden": (32, 32)}

    critic_beta2: float = Field(
        0.9, ge=0, lt=1, description="decay of Adam's squared gradients in the critic's phase"
    )
    gamma: float = Field(
        35.0, ge=0, description="weight of the total correlation in nats, besides that in the rate"
    )
    critic_hidden: Widths = Field(
        (1000,) * 6, min_length=1, description="widths of the critic's dense layers"
    )


class AaeOptions(CriticOptions):
    test_defaults: ClassVar[Mapping[str, Any]] = {"critic_hidden": (32, 32)}

    critic_hidden: Widths = Field(
        (1000, 1000), min_length=1, description="widths of the critic's dense layers"
    )
    encoder_lr_factor: float = Field(
        0.5,
        gt=0,
        description="the encoder's learning rate against the critic, as a multiple of --lr",
    )


class VaeGanOptions(CriticOptions):
    test_defaults: ClassVar[Mapping[str, Any]] = {
        "critic_hidden": (8, 16, 16),
        "critic_features": 32,
        "lr_factor": 1.0,
        # With eight examples the critic soon knows them all: with 0.001 the decoder heard so little
        # of the reconstruction that whether it learned them was a matter of rounding.
        "gamma": 0.1,
    }

    critic_beta1: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of Adam's gradients in the phases that the critic drives; 0 is RMSProp",
    )
    critic_beta2: float = Field(
        0.9, ge=0, lt=1, description="decay of Adam's squared gradients in these phases"
    )
    lr_scale: float = Field(
        0.1,
        gt=0,
        description="the learning rate of all three phases, as a multiple of --lr, the critic's "
        "own factor on top: with steps as long as a plain VAE's, samples collapse before the "
        "critic has learned what images are",
    )
    gamma: float = Field(
        1e-3,
        ge=0,
        description="how much the decoder is to reconstruct, against fooling the critic",
    )
    fooling: Literal["minimax", "non_saturating"] = Field(
        "minimax",
        description="minimax: the decoder maximises what the critic minimises; non_saturating: it "
        "minimises -log D of its images, whose gradient does not vanish when the critic is sure",
    )
    critic_hidden: Widths = Field(
        (16, 32, 64, 64),
        min_length=2,
        description="channels of the critic: of its first level, and of the others, which halve "
        "the image; images are compared at the last",
    )
    critic_features: int = Field(
        64, ge=1, description="width of the critic's dense layer after the convolutions"
    )
