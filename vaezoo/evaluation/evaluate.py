"""The numbers of a model on held-out data, each in its unit, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from vaezoo.data.batch import Batch
from vaezoo.data.batches import Batches
from vaezoo.distributions import kl_divergence, point
from vaezoo.evaluation.image_metrics import mse, psnr, ssim
from vaezoo.evaluation.modes import evaluation_mode, seeded
from vaezoo.model import BaseVAE

ACTIVE_VARIANCE = 0.01
"""A latent is active when its posterior mean varies more than this over the data."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured. None where the model or the data has no such number: notes say why.

    elbo, log_likelihood, rate, distortion: nats per example. bits_per_dim: from the ELBO.
    log_likelihood: importance-weighted (Burda et al. 2015, equation 8), with the standard error
        of its mean over the examples.
    mse, psnr, ssim: of reconstructions, means over the examples; psnr in dB.
    active_units: latents whose posterior mean varies by more than 0.01 over the data (Burda et al.
        2015, section 2).
    reconstruction_r2: share of the variance around the mean image that reconstructions explain.
    """

    elbo: float | None
    log_likelihood: float | None
    rate: float | None
    distortion: float | None
    bits_per_dim: float | None
    mse: float | None
    psnr: float | None
    ssim: float | None
    active_units: int | None
    reconstruction_r2: float | None
    examples: int
    importance_samples: int
    log_likelihood_standard_error: float | None
    notes: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate_model(
    model: BaseVAE,
    batches: Batches,
    *,
    capabilities: Collection[str],
    importance_samples: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Measure a model on every example of a split.

    capabilities: the model's tags; they tell which numbers mean something. importance_samples: how
    many draws an example for the log-likelihood, 0 for none. The noise follows from `seed`; the
    generators and the modules' modes are left as they were. Nothing is read back before the end.
    """
    sums = _Sums(model, capabilities, importance_samples)
    # Not inference_mode: a posterior may need gradients of its own.
    with evaluation_mode(model), seeded(seed, batches.device), torch.no_grad():
        for batch in batches.ordered():
            sums.add(batch)
    return sums.result(len(batches.split))


class _Sums:
    """Sums over the examples, on the device, in double precision where it has that."""

    def __init__(
        self, model: BaseVAE, capabilities: Collection[str], importance_samples: int
    ) -> None:
        self.model = model
        self.samples = importance_samples
        self.has_elbo = "elbo" in capabilities
        self.has_importance = "importance" in capabilities
        self.has_codes = "discrete" in capabilities
        self.bounded = model.data.domain != "real"
        self.totals: dict[str, Tensor] = {}

    def add(self, batch: Batch) -> None:
        model, x = self.model, batch.x
        y = model.labels(batch.y)
        posterior = model.encode(x, y)
        if self.has_elbo:
            z = posterior.rsample()
            self._add("distortion", -model.decode(z, y).log_prob(x))
            self._add("rate", kl_divergence(posterior, model.prior(y), z))
        if self.has_importance and self.samples:
            log_p = model.log_likelihood(x, y, samples=self.samples)
            self._add("log_likelihood", log_p)
            self._add("log_likelihood_squared", log_p.double().square())
        if not self.has_codes:
            self._add_vectors("latent", point(posterior).flatten(1))

        reconstruction = model.reconstruct(x, y).float()
        errors = mse(reconstruction, x)
        self._add("mse", errors)
        self._add_vectors("x", x.flatten(1))
        if self.bounded and model.data.is_image:
            # Quieter than 8-bit rounding is as good as equal: 0 error would be infinite dB.
            self._add("psnr", psnr(reconstruction, x).clamp(max=-10 * math.log10(1e-10)))
            self._add("ssim", ssim(reconstruction.clamp(0, 1), x))

    def _add(self, name: str, values: Tensor) -> None:
        self._accumulate(name, _double(values).sum())

    def _add_vectors(self, name: str, values: Tensor) -> None:
        """Sums and sums of squares of each column, around the first batch's mean.

        The shift keeps the variance from being a small difference of large numbers.
        """
        values = _double(values)
        shift = self.totals.setdefault(f"{name}_shift", values.mean(0))
        self._accumulate(f"{name}_sum", (values - shift).sum(0))
        self._accumulate(f"{name}_squares", (values - shift).square().sum(0))

    def _accumulate(self, name: str, value: Tensor) -> None:
        self.totals[name] = self.totals[name] + value if name in self.totals else value

    def _variance(self, name: str, count: int) -> Tensor:
        """The variance of each column over all examples."""
        mean = self.totals[f"{name}_sum"] / count
        return (self.totals[f"{name}_squares"] / count - mean.square()).clamp(min=0)

    def result(self, count: int) -> Evaluation:
        model, data = self.model, self.model.data
        numbers: dict[str, float | None] = {}
        notes: dict[str, str] = {}

        def put(name: str, value: float | None, why_not: str = "") -> None:
            if value is None:
                notes[name] = why_not
            elif not math.isfinite(value):
                value, notes[name] = None, f"it came out as {value}"
            numbers[name] = value

        mean = {
            name: float(total) / count for name, total in self.totals.items() if total.dim() == 0
        }
        no_elbo = "this model has no ELBO"
        elbo = -mean["rate"] - mean["distortion"] if self.has_elbo else None
        put("elbo", elbo, no_elbo)
        put("rate", mean.get("rate"), no_elbo)
        put("distortion", mean.get("distortion"), no_elbo)
        likelihood = getattr(model, "likelihood", None)
        bits = None
        if elbo is not None and likelihood is not None:
            bits = likelihood.bits_per_dim(-elbo, data)
        no_bits = "its likelihood is not one of the data's levels" if self.has_elbo else no_elbo
        put("bits_per_dim", bits, no_bits)

        none_asked = "give --importance-samples to estimate it"
        no_log_p = none_asked if self.has_importance else "this model has no importance weights"
        log_p = mean.get("log_likelihood")
        put("log_likelihood", log_p, no_log_p)
        error = None
        if log_p is not None and count > 1:
            variance = max(0.0, mean["log_likelihood_squared"] - log_p**2)
            error = math.sqrt(variance / (count - 1))
        put("log_likelihood_standard_error", error, no_log_p)

        put("mse", mean["mse"])
        no_image = "it is a measure of images in [0, 1]"
        put("psnr", mean.get("psnr"), no_image)
        put("ssim", mean.get("ssim"), no_image)
        spread = float(self._variance("x", count).sum())
        constant = "the examples do not differ"
        r2 = 1.0 - mean["mse"] * data.values / spread if spread else None
        put("reconstruction_r2", r2, constant)
        active = None
        if self.has_codes:
            notes["active_units"] = "its latents are codes"
        else:
            active = int((self._variance("latent", count) > ACTIVE_VARIANCE).sum())
        return Evaluation(
            **numbers,
            active_units=active,
            examples=count,
            importance_samples=self.samples if self.has_importance else 0,
            notes=notes,
        )


def _double(values: Tensor) -> Tensor:
    return values.float() if values.device.type == "mps" else values.double()
