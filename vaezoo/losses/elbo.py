"""The terms of the evidence lower bound (ELBO)."""

from __future__ import annotations

from torch import Tensor

from vaezoo.models.base import VAEOutput
from vaezoo.models.distributions import kl_divergence


def elbo_terms(output: VAEOutput, x: Tensor) -> dict[str, Tensor]:
    """`elbo`, `rate` and `distortion` of a batch, in nats per example: [batch] each.

    distortion: -E_q log p(x|z), by one sample. rate: KL(q(z|x) ‖ p(z)). elbo: -(rate + distortion)
    (Kingma & Welling 2013, equation 3), whatever weights a loss puts on the two.
    """
    posterior, z, prior, likelihood = output
    distortion = -likelihood.log_prob(x)
    rate = kl_divergence(posterior, prior, z)
    return {"elbo": -distortion - rate, "rate": rate, "distortion": distortion}
