"""The loss of VQGAN and latent diffusion: reconstruction, perceptual distance, discriminator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Phase, StepContext
from vaezoo.errors import DataError, OptionError
from vaezoo.models.distributions import Delta, kl_divergence
from vaezoo.nn.batch_norm import freeze_bn_stats
from vaezoo_discrete.losses import batch_statistics, code_terms, quantizer_loss
from vaezoo_discrete.quantizer import Quantizer
from vaezoo_tokenizers.likelihoods import UnboundedLocation

from .adversarial import LeCam, adaptive_weight, discriminator_loss, generator_loss, r1_penalty
from .discriminator import PatchDiscriminator, check_size
from .equivariance import View, check_model, make_views
from .options import PerceptualGANOptions
from .weights import LoadedDistance, check_data, load_distance


class Decoded(NamedTuple):
    """q(z|x), its sample and p(z); and p(x|z) of each view of the batch, with its images."""

    posterior: Distribution
    z: Tensor
    prior: Distribution
    views: list[tuple[Distribution, Tensor]]


class PerceptualGANLoss(BaseLoss):
    """reconstruction + beta · rate + D · (p · perceptual + w · λ · adversarial), in nats.

    Esser et al. (2021, equations 5 to 7) and Rombach et al. (2022, appendix G), times the number D
    of values of an image. reconstruction: Σ |x - x̂| with values in [-1, 1], or the distortion.
    So p and w are the weights beside a mean over values, as in VQGAN, and `beta` is the weight of
    the rate in nats: in the published code of latent diffusion, which sums, it is the KL weight.

    x̂ is the mean of the likelihood, without the clamp of `laplace_linear`. λ balances the
    gradients of the reconstruction with the perceptual term and of the adversarial term at
    `model.last_decoder_layer`. Terms of a quantizer have the weights of the loss `vq`.

    Two phases: `train` updates the model, `discriminator` the patch discriminator, on detached
    reconstructions. Before the step `discriminator_start` both adversarial losses are 0. In
    evaluation the loss has no adversarial term: its values against a discriminator that changes do
    not compare.

    With `eq` a part of the latents is turned and made smaller, and so are the images that they are
    compared with (Kouzelis et al. 2025): see `make_views`. Sums over a smaller image are scaled to
    the size of a whole one. Training then has no term `elbo`, and the discriminator sees images of
    full size only. In evaluation nothing is transformed.
    """

    options: PerceptualGANOptions
    perceptual_sha256: Tensor

    def __init__(self, options: PerceptualGANOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        if not data.is_image:
            raise DataError(
                f"loss perceptual_gan compares images, and this data is {data.describe()}"
            )
        check_data(options.perceptual, data, options.eq_downscale if options.eq else 1)
        self.data = data
        # A list hides the network from nn.Module: it is no part of parameters and state.
        self._distance: list[LoadedDistance] = []
        if options.perceptual in ("lpips", "classifier"):
            self.register_buffer("perceptual_sha256", torch.zeros(32, dtype=torch.uint8))
            self.register_load_state_dict_post_hook(lambda module, _: module._check_weights())
        if options.reconstruction == "l1":
            # Only the likelihood's mean is used: a learned scale would get no gradient.
            model.likelihood.requires_grad_(False)
        if batch_statistics(model):
            self.no_accumulate_reason = "the entropy of codes is that of a whole batch"
        self.discriminator: PatchDiscriminator | None = None
        self.lecam: LeCam | None = None
        if options.adversarial_weight:
            self._make_discriminator(options, model)

    def _make_discriminator(self, options: PerceptualGANOptions, model: BaseVAE) -> None:
        check_size(self.data, options.discriminator_layers)
        self.discriminator = PatchDiscriminator(
            self.data,
            options.discriminator_channels,
            options.discriminator_layers,
            options.discriminator_norm,
        )
        if options.discriminator_norm == "batch":
            model.min_batch_size = max(2, model.min_batch_size)
        if options.lecam:
            self.lecam = LeCam(options.lecam_decay)
            self.no_accumulate_reason = "--lecam averages the logits of whole batches"
        if options.r1:
            self.no_shard_reason = "--r1 differentiates the discriminator's gradient"
        if options.adaptive_weight:
            self.no_accumulate_reason = "--adaptive-weight is of the gradient of a whole batch"
            self.no_shard_reason = "--adaptive-weight differentiates by the decoder's last layer"

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The model's loss."""
        posterior, z, prior, views = self._decode(model, batch)
        distortions = [-likelihood.log_prob(x) * self._scale(x) for likelihood, x in views]
        terms = {"distortion": torch.cat(distortions)}
        if not isinstance(posterior, Delta):  # it has no rate
            terms["rate"] = kl_divergence(posterior, prior, z)
            if not self._transforms:
                terms["elbo"] = -terms["distortion"] - terms["rate"]
        terms |= code_terms(posterior)
        images = [mean_image(likelihood) for likelihood, _ in views]
        pairs = [(image, x) for image, (_, x) in zip(images, views, strict=True)]
        if self.options.reconstruction == "l1":
            # Twice, since values in [-1, 1] are twice as far apart as those in [0, 1].
            scale = 2.0 if self.data.is_bounded else 1.0
            sums = [(a - b).abs().flatten(1).sum(1) * self._scale(b) for a, b in pairs]
            terms["l1"] = scale * torch.cat(sums)
        likeness = terms["l1" if self.options.reconstruction == "l1" else "distortion"]
        if self.options.perceptual != "none":
            distance = torch.cat([self._compare(a, b) for a, b in pairs])
            terms[f"perceptual_{self._loaded().name}"] = distance
            likeness = likeness + self.data.numel * self.options.perceptual_weight * distance
        loss = likeness.mean() + quantizer_loss(self.options, terms)
        if "rate" in terms:
            loss = loss + self.options.beta * terms["rate"].mean()
        if self.discriminator is None or not torch.is_grad_enabled():
            return LossOutput(loss, terms)
        started = self._started(context)
        with freeze_bn_stats(self.discriminator):
            terms["adversarial"] = generator_loss(self.options.gan, self.discriminator(images[0]))
        adversarial = terms["adversarial"].mean()
        weight: Tensor | float = self.options.adversarial_weight
        if self.options.adaptive_weight:
            balance = adaptive_weight(
                likeness.mean() / self.data.numel, adversarial, last_weight(model)
            )
            terms["adaptive_weight"] = balance
            weight = weight * balance
        added = self.data.numel * weight * adversarial
        return LossOutput(loss + torch.where(started, added, 0.0), terms)

    def discriminator_loss(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The discriminator's loss, with its regularisation."""
        assert self.discriminator is not None
        with torch.no_grad(), freeze_bn_stats(model), freeze_codes(model):
            likelihood, x = self._decode(model, batch).views[0]
            images = mean_image(likelihood)
        x = x.detach().requires_grad_() if self.options.r1 else x
        real, fake = self.discriminator(x), self.discriminator(images)
        loss = discriminator_loss(self.options.gan, real, fake)
        terms = {"real_logit": real.flatten(1).mean(1), "fake_logit": fake.flatten(1).mean(1)}
        started = self._started(context)
        if self.options.r1:
            terms["r1"] = r1_penalty(real, x)
            loss = loss + self.options.r1 * terms["r1"].mean()
        if self.lecam is not None:
            self.lecam.update(real, fake, started)
            terms["lecam"] = self.lecam(real, fake)
            loss = loss + self.options.lecam * terms["lecam"]
        return LossOutput(torch.where(started, loss, 0.0), terms)

    def phases(self, model: BaseVAE) -> list[Phase]:
        # What is missing is said before the first step.
        if self.options.perceptual != "none":
            self._loaded()
        if self.options.eq:
            check_model(model, self.options.eq_downscale)
        phases = [Phase("train", list(model.parameters()), self)]
        if self.discriminator is not None:
            own, scale = list(self.discriminator.parameters()), self.options.discriminator_lr_scale
            betas = self.options.betas()
            phases.append(Phase("discriminator", own, self.discriminator_loss, scale, betas))
        return phases

    def _started(self, context: StepContext) -> Tensor:
        """Whether the discriminator is trained and used at this step, 0-dim."""
        start = self.options.discriminator_start
        if start >= context.total_steps:
            raise OptionError(
                f"--discriminator-start {start}: the training has only {context.total_steps:,} "
                "steps: give less, or --adversarial-weight 0"
            )
        return context.global_step >= start

    @property
    def _transforms(self) -> bool:
        """Whether latents are transformed: with `eq`, in training."""
        return self.options.eq > 0 and self.training

    def _decode(self, model: BaseVAE, batch: Batch) -> Decoded:
        """The batch, encoded and decoded."""
        if not self._transforms:
            posterior, z, prior, likelihood = model(batch.x, batch.y)
            return Decoded(posterior, z, prior, [(likelihood, batch.x)])
        y = model.labels(batch.y)
        posterior = model.encode(batch.x, y)
        z = posterior.rsample()
        views = make_views(View(z, batch.x, y), self.options.eq, self.options.eq_downscale)
        decoded = [(model.decode(view.z, view.y), view.x) for view in views]
        return Decoded(posterior, z, model.density_prior(y), decoded)

    def _scale(self, x: Tensor) -> float:
        """The number of values of an image of the data, divided by that of these images."""
        return self.data.numel / x[0].numel()

    def _compare(self, images: Tensor, x: Tensor) -> Tensor:
        """The perceptual distance of each image, [batch]."""
        found = self._loaded()
        found.place(x)
        return found.distance(images, x)

    def _loaded(self) -> LoadedDistance:
        """The perceptual distance, which is read when it is first needed.

        A finished run opens without the weights.
        """
        if not self._distance:
            options = self.options
            assert options.perceptual != "none"
            found = load_distance(
                options.perceptual, self.data, options.perceptual_file, options.download_weights
            )
            self._distance.append(found)
            self._check_weights()
        return self._distance[0]

    def _check_weights(self) -> None:
        """OptionError if the weights are not those that the training began with."""
        if not self._distance or not self._distance[0].digest:
            return
        digest = self._distance[0].digest
        known = bytes(self.perceptual_sha256.tolist())
        if any(known) and known != digest:
            raise OptionError(
                f"the weights of --perceptual {self.options.perceptual} are not those that this "
                f"training began with: their sha256 is {digest.hex()[:8]}…, not {known.hex()[:8]}…"
            )
        self.perceptual_sha256.copy_(torch.tensor(list(digest), dtype=torch.uint8))


def mean_image(likelihood: Distribution) -> Tensor:
    """The mean of p(x|z), without the clamp of an UnboundedLocation: [batch, *data.shape]."""
    if isinstance(likelihood, UnboundedLocation):
        return likelihood.base_dist.mean
    return likelihood.mean


def last_weight(model: BaseVAE) -> nn.Parameter:
    """The first parameter of the decoder's last layer. OptionError if it is frozen."""
    parameter = next(model.last_decoder_layer.parameters())
    if not parameter.requires_grad:
        raise OptionError(
            "--adaptive-weight differentiates by the decoder's last layer, which is frozen: give "
            "--no-adaptive-weight"
        )
    return parameter


@contextmanager
def freeze_codes(model: nn.Module) -> Iterator[None]:
    """Inside, quantizers work as in evaluation: no moving average and no codebook changes."""
    training = [m for m in model.modules() if isinstance(m, Quantizer) and m.training]
    for quantizer in training:
        quantizer.train(False)
    try:
        yield
    finally:
        for quantizer in training:
            quantizer.train(True)
