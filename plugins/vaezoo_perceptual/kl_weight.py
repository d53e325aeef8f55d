"""From the KL weight of other code to `--beta`. No torch here."""

from __future__ import annotations

from typing import Literal

Reduction = Literal["sum", "mean"]


def beta_from_kl_weight(
    kl_weight: float,
    *,
    num_values: int,
    num_latents: int,
    l1: Reduction = "mean",
    kl: Reduction = "sum",
) -> float:
    """The `beta` of `perceptual_gan` that has the same minimum as a loss with this KL weight.

    The other loss is  |x - x̂| + kl_weight · KL  with values in [-1, 1] and means over the batch.
    l1: whether its absolute errors are a mean over the values of an image, as in most training
    scripts, or a sum, as in the published code of latent diffusion (kl_weight 1e-6).
    kl: whether its KL is a sum over the latents of an image, or a mean.
    num_values, num_latents: of an image, as 3 · 256 · 256 and 4 · 32 · 32.

    Here both are sums. A sum of absolute errors is num_values times their mean, and so is the
    weight of the KL beside it.
    """
    weight = kl_weight if l1 == "sum" else kl_weight * num_values
    return weight if kl == "sum" else weight / num_latents
