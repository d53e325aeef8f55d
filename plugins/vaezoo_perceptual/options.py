"""The options of the loss `perceptual_gan`. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vaezoo_adversarial.options import DiscriminatorOptions
from vaezoo_discrete.options import VQLossOptions

Perceptual = Literal["lpips", "classifier", "ms_ssim", "none"]


class PerceptualGANOptions(DiscriminatorOptions, VQLossOptions):
    """All weights are against the absolute error of one value, as in VQGAN; beta is in nats."""

    test_defaults: ClassVar[Mapping[str, Any]] = {
        "perceptual": "ms_ssim",
        "discriminator_channels": 8,
        "discriminator_layers": 1,
        # Inside both hinges the gradients of the last bias cancel.
        "gan": "non_saturating",
        "beta": 1e-3,
    }

    reconstruction: Literal["l1", "likelihood"] = Field(
        "l1",
        description="l1: absolute errors of values in [-1, 1], as in latent diffusion; likelihood: "
        "the model's own distortion",
    )
    beta: float = Field(
        1e-6, ge=0, description="weight of the rate in nats, where the model has a rate"
    )
    perceptual: Perceptual = Field(
        "lpips",
        description="what compares images: lpips needs the weights of VGG16, classifier a file of "
        "`vaezoo classifier`, ms_ssim nothing",
    )
    perceptual_weight: float = Field(1.0, ge=0, description="weight of the perceptual distance")
    perceptual_file: Path | None = Field(
        None,
        description="file with the weights of the perceptual network; lpips: VGG16 as torchvision "
        "has it, by default in the cache of torch.hub",
    )
    download_weights: bool = Field(
        False, description="download VGG16 (528 MB) if it is not in the cache of torch.hub"
    )
    gan: Literal["hinge", "vanilla", "non_saturating"] = Field(
        "hinge",
        description="the discriminator's loss: hinge, or cross-entropy (vanilla, non_saturating); "
        "the model maximises the logit, or minimises -log D (non_saturating)",
    )
    adversarial_weight: float = Field(
        0.5, ge=0, description="weight of the adversarial term; 0: no discriminator"
    )
    adaptive_weight: bool = Field(
        True,
        description="multiply it by the ratio of the gradients of both terms at the decoder's last "
        "layer",
    )
    discriminator_start: int = Field(
        0, ge=0, description="step from which the discriminator is trained and used"
    )
    discriminator_beta1: float = Field(
        0.5, ge=0, lt=1, description="Adam's beta1 in the discriminator's phase"
    )
    discriminator_beta2: float = Field(
        0.9, ge=0, lt=1, description="Adam's beta2 in the discriminator's phase"
    )
    discriminator_channels: int = Field(
        64, ge=1, description="channels of the discriminator's first layer; at most 8 times as many"
    )
    discriminator_layers: int = Field(
        3, ge=1, le=8, description="layers of the discriminator that halve the image"
    )
    discriminator_norm: Literal["batch", "group", "none"] = Field(
        "batch", description="normalisation in the discriminator"
    )
    r1: float = Field(
        0.0, ge=0, description="weight gamma of the discriminator's gradient penalty on real images"
    )
    lecam: float = Field(
        0.0, ge=0, description="weight of the LeCam regularisation of the discriminator"
    )
    lecam_decay: float = Field(
        0.999, ge=0, lt=1, description="decay of the moving averages of logits in it"
    )
    eq: float = Field(
        0.0,
        ge=0,
        le=1,
        description="fraction of a batch whose latents are turned and shrunk before they are "
        "decoded, and compared with images turned and shrunk alike; 0.5 in EQ-VAE",
    )
    eq_downscale: int = Field(
        2, ge=1, le=8, description="how much smaller half of them are made; 1: only turns"
    )

    @model_validator(mode="after")
    def _check_file(self) -> Self:
        if self.perceptual == "classifier" and self.perceptual_file is None:
            raise ValueError(
                "--perceptual classifier needs --perceptual-file FILE, which `vaezoo classifier` "
                "writes"
            )
        if self.perceptual in ("ms_ssim", "none") and self.perceptual_file is not None:
            raise ValueError(f"--perceptual {self.perceptual} reads no --perceptual-file")
        return self
