"""The loss perceptual_gan: its formula, its weights, its phases, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vaezoo
from small_models import images, run_loss, small_model
from vaezoo import BaseVAE, Batch, DataSpec, StepContext
from vaezoo.cli.main import main
from vaezoo.errors import DataError, OptionError
from vaezoo.losses.base import Phase, loss_of
from vaezoo.runs.run import Run
from vaezoo_perceptual.adversarial import (
    LeCam,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from vaezoo_perceptual.discriminator import PatchDiscriminator, check_size, smallest
from vaezoo_perceptual.kl_weight import beta_from_kl_weight
from vaezoo_perceptual.loss import PerceptualGANLoss, mean_image

SMALL: dict[str, Any] = {
    "loss": "perceptual_gan",
    "discriminator_channels": 4,
    "discriminator_layers": 1,
}
TINY: dict[str, Any] = {
    **SMALL,
    "perceptual": "ms_ssim",
    "data": "sprites",
    "examples": 60,
    "test": 12,
    "image_size": 16,
    "hidden": (4, 4),
    "batch_size": 6,
    "epochs": 1,
    "log_every": 2,
    "device": "cpu",
}


def build(name: str = "vanilla", **options: Any) -> BaseVAE:
    """A small model of images of 8×8, without a perceptual term unless the options have one."""
    return small_model(name, **{**SMALL, "perceptual": "none", **options})


def own_loss(model: BaseVAE) -> PerceptualGANLoss:
    loss = loss_of(model)
    assert isinstance(loss, PerceptualGANLoss)
    return loss.double()


def phase(model: BaseVAE, name: str) -> Phase:
    return {phase.name: phase for phase in own_loss(model).phases(model)}[name]


def context(step: int = 0) -> StepContext:
    return StepContext(torch.tensor(step), 10, 100)


class TestTermsOfTheGame:
    """Real logits (2, -½), fake logits (½, -3)."""

    real, fake = torch.tensor([[2.0, -0.5]]), torch.tensor([[0.5, -3.0]])

    def test_hinge(self) -> None:
        found = discriminator_loss("hinge", self.real, self.fake)
        assert found.item() == pytest.approx(0.5 * (1.5 / 2 + 1.5 / 2))
        assert generator_loss("hinge", self.fake).tolist() == [1.25]

    @pytest.mark.parametrize("form", ["vanilla", "non_saturating"])
    def test_cross_entropy(self, form: Any) -> None:
        def log_sigmoid(x: float) -> float:
            return -math.log1p(math.exp(-x))

        right = [log_sigmoid(x) for x in (2.0, -0.5, -0.5, 3.0)]
        found = discriminator_loss(form, self.real, self.fake)
        assert found.item() == pytest.approx(-sum(right) / 4)
        assert discriminator_loss(form, *torch.zeros(2, 3)).item() == pytest.approx(math.log(2))

    def test_non_saturating_generator(self) -> None:
        found = generator_loss("non_saturating", self.fake)
        entropy = F.binary_cross_entropy_with_logits(self.fake, torch.ones(1, 2))
        assert found.tolist() == [pytest.approx(entropy.item())]
        assert generator_loss("vanilla", self.fake).tolist() == [1.25]

    def test_r1_of_a_linear_discriminator(self) -> None:
        """D(x) = w·x at two patches, v·x at the other: ½ ‖(w + v) / 2‖² at every image."""
        w = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
        x = torch.randn(5, 3, 2, 2, dtype=torch.float64, requires_grad=True)
        found = r1_penalty((x.flatten(1) @ w.T).view(5, 1, 1, 2), x)
        expected = 0.5 * w.mean(0).square().sum()
        torch.testing.assert_close(found, expected.expand(5))
        found.mean().backward()
        torch.testing.assert_close(w.grad, (w.mean(0) / 2).expand(2, 12).detach())

    def test_lecam(self) -> None:
        """By hand: the first averages are those of the batch, the next move by 1 - decay."""
        lecam, on = LeCam(0.75), torch.tensor(True)
        lecam.update(self.real, self.fake, on)
        assert (lecam.ema_real.item(), lecam.ema_fake.item()) == (0.75, -1.25)
        # max(0, real + 1.25)² = 3.25², 0.75²; max(0, 0.75 - fake)² = 0.25², 3.75².
        expected = (3.25**2 + 0.75**2) / 2 + (0.25**2 + 3.75**2) / 2
        assert lecam(self.real, self.fake).item() == pytest.approx(expected)
        assert lecam(torch.tensor([-2.0]), torch.tensor([1.0])).item() == 0.0
        lecam.update(self.fake, self.real, on)
        assert lecam.ema_real.item() == pytest.approx(0.75 * 0.75 - 0.25 * 1.25)
        assert lecam.ema_fake.item() == pytest.approx(-0.75 * 1.25 + 0.25 * 0.75)

    def test_lecam_waits_for_the_start(self) -> None:
        lecam = LeCam(0.75)
        lecam.update(self.real, self.fake, torch.tensor(False))
        assert (lecam.ema_real.item(), lecam.updates.item()) == (0.0, 0)
        lecam.update(self.fake, self.real, torch.tensor(True))
        assert (lecam.ema_real.item(), lecam.updates.item()) == (-1.25, 1)


class TestPatchDiscriminator:
    data = DataSpec(shape=(3, 96, 96))

    def test_it_has_the_layers_of_the_paper(self) -> None:
        """C64-C128-C256-C512 and the last, without biases before norms."""
        found = PatchDiscriminator(self.data, 64, 3, "batch")
        convs = [layer for layer in found.modules() if isinstance(layer, nn.Conv2d)]
        assert [layer.out_channels for layer in convs] == [64, 128, 256, 512, 1]
        assert [layer.stride[0] for layer in convs] == [2, 2, 2, 1, 1]
        assert sum(p.numel() for p in found.parameters()) == 2_765_633

    @pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
    def test_the_size_of_a_patch(self, layers: int, patch: int) -> None:
        found = PatchDiscriminator(self.data, 2, layers, "none")
        x = torch.rand(1, 3, 96, 96, requires_grad=True)
        logits = found(x)
        row = logits.shape[2] // 2
        (slope,) = torch.autograd.grad(logits[0, 0, row, row], x)
        touched = slope.abs().sum((0, 1)).nonzero()
        assert (touched.max(0)[0] - touched.min(0)[0] + 1).tolist() == [patch, patch]

    @pytest.mark.parametrize("layers", [1, 2, 4])
    def test_the_smallest_image(self, layers: int) -> None:
        side = smallest(layers)
        found = PatchDiscriminator(self.data, 2, layers, "group")
        assert found(torch.rand(2, 3, side, side + 5)).shape[:3] == (2, 1, 1)
        with pytest.raises(RuntimeError):
            found(torch.rand(2, 3, side - 1, side))

    def test_an_image_that_is_too_small_is_refused(self) -> None:
        with pytest.raises(DataError, match="needs images of 24 pixels, not 8: give disc"):
            build(discriminator_layers=3)
        with pytest.raises(DataError, match="24 pixels, not 5: give --adversarial-weight 0"):
            check_size(DataSpec(shape=(1, 30, 5)), 3)

    def test_values_are_centred(self) -> None:
        """2x - 1, as networks are given images."""
        found = PatchDiscriminator(DataSpec(shape=(1, 8, 8)), 2, 1, "none")
        (conv,) = [m for m in found.body if isinstance(m, nn.Conv2d)][:1]
        x = torch.rand(2, 1, 8, 8)
        seen: list[Tensor] = []
        conv.register_forward_hook(lambda module, args, out: seen.append(args[0]))
        found(x)
        assert seen[0].equal(2 * x - 1)


class TestFormula:
    @pytest.mark.parametrize("reconstruction", ["l1", "likelihood"])
    def test_the_loss_by_hand(self, reconstruction: str) -> None:
        vae, x = build(reconstruction=reconstruction, beta=0.3, adversarial_weight=0), images()
        loss, terms = run_loss(vae, x)
        torch.manual_seed(1)
        output = vae(x)
        l1 = 2 * (output.likelihood.mean - x).abs().flatten(1).sum(1)
        distortion = -output.likelihood.log_prob(x)
        first = l1 if reconstruction == "l1" else distortion
        torch.testing.assert_close(loss, (first + 0.3 * terms["rate"]).mean())
        torch.testing.assert_close(terms["elbo"], -distortion - terms["rate"])

    def test_weights_are_beside_a_mean_over_values(self) -> None:
        x = images()
        values = {}
        for weight in (0.0, 0.25):
            vae = small_model("vanilla", perceptual="none", adversarial_weight=weight, **SMALL)
            own_loss(vae)
            values[weight] = run_loss(vae, x)
        terms = values[0.25].terms
        added = 64 * 0.25 * terms["adaptive_weight"] * terms["adversarial"].mean()
        torch.testing.assert_close(values[0.25].loss, values[0.0].loss + added)

    def test_a_fixed_weight(self) -> None:
        x, values = images(), {}
        for weight in (0.0, 0.25):
            vae = build(adversarial_weight=weight, adaptive_weight=False)
            own_loss(vae)
            values[weight] = run_loss(vae, x)
        added = 64 * 0.25 * values[0.25].terms["adversarial"].mean()
        torch.testing.assert_close(values[0.25].loss, values[0.0].loss + added)
        assert "adaptive_weight" not in values[0.25].terms

    def test_the_adaptive_weight_is_the_ratio_of_gradients(self) -> None:
        vae, x = build(reconstruction="likelihood", gan="non_saturating"), images()
        loss = own_loss(vae)
        found = run_loss(vae, x).terms["adaptive_weight"]
        last = [layer for layer in vae.decoder.modules() if isinstance(layer, nn.Linear)][-1]
        norms = []
        for which in (0, 1):
            torch.manual_seed(1)
            likelihood = vae(x).likelihood
            assert loss.discriminator is not None
            nll = -likelihood.log_prob(x).mean() / 64
            fooled = F.softplus(-loss.discriminator(likelihood.mean)).mean()
            vae.zero_grad()
            (nll, fooled)[which].backward()
            assert last.weight.grad is not None
            norms.append(last.weight.grad.norm())
        torch.testing.assert_close(found, norms[0] / (norms[1] + 1e-4))

    def test_the_adaptive_weight_is_limited(self) -> None:
        weight = nn.Parameter(torch.ones(3))
        large, small = (weight * 1e6).sum(), (weight * 1e-9).sum()
        assert adaptive_weight(large, small, weight).item() == pytest.approx(1e4)
        assert adaptive_weight(small, large, weight).item() < 1e-12

    def test_a_frozen_last_layer_is_refused(self) -> None:
        vae = build()
        own_loss(vae)
        vae.last_decoder_layer.requires_grad_(False)
        with pytest.raises(OptionError, match="is frozen: give --no-adaptive"):
            run_loss(vae, images())

    def test_reconstructions_are_not_clamped(self) -> None:
        """Where the location is outside of [0, 1], l1 still has a gradient."""
        vae = build(likelihood="laplace_linear", adversarial_weight=0)
        with torch.no_grad():
            list(vae.last_decoder_layer.parameters())[-1].fill_(5.0)
        likelihood = vae(images()).likelihood
        assert likelihood.mean.max() == 1.0
        assert mean_image(likelihood).min() > 1.0
        run_loss(vae, images()).loss.backward()
        assert next(vae.last_decoder_layer.parameters()).grad is not None
        assert next(vae.last_decoder_layer.parameters()).grad.any()  # type: ignore[union-attr]

    def test_codes_have_the_terms_of_the_loss_vq(self) -> None:
        """With the distortion and without a discriminator it is that loss, beta being 1."""
        small = {"hidden": (4, 4), "code_dim": 3, "codes": 8, "dead_code_steps": None}
        values = []
        own = {"perceptual": "none", "adversarial_weight": 0, "reconstruction": "likelihood"}
        for loss, options in (("vq", {}), ("perceptual_gan", {**own, "beta": 1.0})):
            torch.manual_seed(0)
            vae = vaezoo.create_model(
                "vq_vae",
                (1, 8, 8),
                loss=loss,
                commitment=0.7,
                codebook="gradient",
                **small,
                **options,
            )
            values.append(run_loss(vae, images().float()))
        torch.testing.assert_close(values[0].loss, values[1].loss)
        assert {"perplexity", "usage", "commitment", "codebook"} <= {*values[1].terms}

    def test_a_model_without_a_rate(self) -> None:
        loss, terms = run_loss(build("autoencoder", adversarial_weight=0), images())
        assert "rate" not in terms
        torch.testing.assert_close(loss, terms["l1"].mean())

    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    @pytest.mark.parametrize("kl", ["sum", "mean"])
    def test_beta_from_the_kl_weight_of_other_code(self, reduction: Any, kl: Any) -> None:
        """The gradients point the same way as those of the other loss."""
        beta = beta_from_kl_weight(1e-2, num_values=64, num_latents=3, l1=reduction, kl=kl)
        vae, x = build(beta=beta, adversarial_weight=0), images()
        loss, _ = run_loss(vae, x)
        torch.manual_seed(1)
        output = vae(x)
        errors = ((2 * output.likelihood.mean - 1) - (2 * x - 1)).abs().flatten(1)
        rates = torch.distributions.kl_divergence(
            output.posterior.base_dist,
            output.prior.base_dist,  # type: ignore[attr-defined]
        )
        theirs = getattr(errors, reduction)(1).mean() + 1e-2 * getattr(rates, kl)(1).mean()
        parameters = [p for p in vae.parameters() if p.requires_grad]
        ours = torch.autograd.grad(loss, parameters)
        others = torch.autograd.grad(theirs, parameters)
        scale = 1.0 if reduction == "sum" else 64.0
        for a, b in zip(ours, others, strict=True):
            torch.testing.assert_close(a, scale * b)

    def test_published_weights(self) -> None:
        """Latent diffusion sums both: 1e-6 is beta. A mean of 256×256 values makes it 0.2."""
        sizes = {"num_values": 3 * 256 * 256, "num_latents": 4 * 32 * 32}
        assert beta_from_kl_weight(1e-6, l1="sum", **sizes) == 1e-6
        assert beta_from_kl_weight(1e-6, **sizes) == pytest.approx(0.196608)


class TestPhases:
    def test_neither_network_gets_gradients_of_the_others_loss(self) -> None:
        vae, x = build(r1=1.0, lecam=0.1), images()
        loss = own_loss(vae)
        assert loss.discriminator is not None
        found = phase(vae, "discriminator").loss_fn(vae, Batch(x), context())
        found.loss.backward()
        assert all(p.grad is None for p in vae.parameters())
        own = phase(vae, "train")
        vae.zero_grad()
        loss.zero_grad()
        own.loss_fn(vae, Batch(x), context()).loss.backward(inputs=list(own.parameters))
        assert all(p.grad is None for p in loss.discriminator.parameters())
        assert not {*own.parameters} & {*loss.parameters()}

    def test_the_discriminators_loss_by_hand(self) -> None:
        vae, x = build(r1=2.0, lecam=0.5, discriminator_norm="none"), images()
        loss = own_loss(vae)
        torch.manual_seed(1)
        found = phase(vae, "discriminator").loss_fn(vae, Batch(x), context())
        torch.manual_seed(1)
        fake = vae(x).likelihood.mean.detach()
        assert loss.discriminator is not None
        leaf = x.clone().requires_grad_()
        real_logits, fake_logits = loss.discriminator(leaf), loss.discriminator(fake)
        (slope,) = torch.autograd.grad(real_logits.mean((1, 2, 3)).sum(), leaf)
        hinges = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
        lecam = F.relu(real_logits - fake_logits.mean()).square().mean()
        lecam = lecam + F.relu(real_logits.mean() - fake_logits).square().mean()
        r1 = slope.square().flatten(1).sum(1).mean() / 2
        torch.testing.assert_close(found.loss, hinges / 2 + 2.0 * r1 + 0.5 * lecam)

    @pytest.mark.parametrize("adaptive", [True, False])
    def test_before_the_start_the_loss_is_the_one_without_a_discriminator(
        self, adaptive: bool
    ) -> None:
        """To the bit, with its gradients; and the discriminator gets none."""
        x, found = images(), []
        for options in ({"discriminator_start": 5}, {"adversarial_weight": 0}):
            vae = build(adaptive_weight=adaptive, r1=1.0, lecam=0.5, **options)
            own_loss(vae)
            loss = run_loss(vae, x, step=4).loss
            loss.backward()
            found.append([loss, *(p.grad for p in vae.parameters() if p.grad is not None)])
        assert len(found[0]) == len(found[1])
        assert all(a.equal(b) for a, b in zip(*found, strict=True))
        vae = build(discriminator_start=5, r1=1.0, lecam=0.5)
        own = phase(vae, "discriminator")
        for step, silent in ((4, True), (5, False)):
            loss = own.loss_fn(vae, Batch(x), context(step)).loss
            slopes = torch.autograd.grad(loss, own.parameters)
            assert all(not slope.any() for slope in slopes) is silent
            assert (loss.item() == 0) is silent
        assert not run_loss(vae, x, step=5).loss.equal(run_loss(vae, x, step=4).loss)

    def test_a_start_after_the_end_is_refused(self) -> None:
        with pytest.raises(OptionError, match="--discriminator-start 10: the training has only 10"):
            run_loss(build(discriminator_start=10), images())

    @pytest.mark.parametrize("codebook", ["ema", "gradient"])
    def test_the_discriminators_phase_leaves_the_model_as_it_is(self, codebook: str) -> None:
        """Also the averages of a codebook, the statistics of batch norm, and its mode."""
        torch.manual_seed(0)
        vae = vaezoo.create_model(
            "vq_vae",
            (1, 8, 8),
            **{**SMALL, "perceptual": "none", "hidden": (4, 4), "codes": 8},
            codebook=codebook,
        )
        loss_of(vae)(vae, Batch(images().float()), context())
        before = {key: value.clone() for key, value in vae.state_dict().items()}
        modes = [module.training for module in vae.modules()]
        for found in loss_of(vae).phases(vae):
            if found.name == "discriminator":
                found.loss_fn(vae, Batch(images().float()), context())
        assert all(value.equal(before[key]) for key, value in vae.state_dict().items())
        assert [module.training for module in vae.modules()] == modes

    def test_without_an_adversarial_weight_there_is_no_discriminator(self) -> None:
        loss = own_loss(build(adversarial_weight=0))
        assert not list(loss.parameters())
        assert [p.name for p in loss.phases(build())] == ["train"]

    def test_evaluation_leaves_the_adversarial_term_out(self) -> None:
        vae = build()
        loss = own_loss(vae)
        with torch.no_grad():
            found = loss(vae, Batch(images()), context())
        assert "adversarial" not in found.terms
        expected = found.terms["l1"] + 1e-6 * found.terms["rate"]
        torch.testing.assert_close(found.loss, expected.mean())

    def test_an_l1_loss_trains_no_scale(self) -> None:
        for reconstruction, learned in (("l1", False), ("likelihood", True)):
            vae = small_model(
                "vanilla",
                likelihood="gaussian_linear",
                learn_scale=True,
                reconstruction=reconstruction,
                perceptual="none",
                **SMALL,
            )
            assert any(p.requires_grad for p in vae.likelihood.parameters()) is learned


class TestRuns:
    def test_a_stopped_run_is_resumed_to_the_same_bits(
        self, tmp_path: Path, assert_resumes: Callable[..., Run]
    ) -> None:
        """With the codebook's averages, the discriminator's norms, and those of LeCam."""
        own = {"codes": 8, "prior_steps": 0, "lecam": 0.1, "r1": 0.5, "discriminator_start": 3}
        whole = vaezoo.train("vq_vae", out=tmp_path / "whole", **TINY, **own)
        assert_resumes(whole, 4, **TINY, **own)

    def test_bad_options_are_said_in_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for words, said in (
            (("--discriminator-start", "9"), "only 9 steps"),
            (("--perceptual", "classifier"), "needs --perceptual-file FILE"),
            (("--perceptual-file", "x.pth"), "ms_ssim reads no --perceptual-file"),
        ):
            small = ["--image-size", "16", "--examples", "40", "--test", "10", "--steps", "9"]
            small += ["--hidden", "4,4", "--loss", "perceptual_gan", "--perceptual", "ms_ssim"]
            small += ["--discriminator-layers", "1", "--out", str(tmp_path / "r")]
            assert main(["train", "vanilla", *small, *words]) == 2
            (line,) = [*filter(None, capsys.readouterr().err.splitlines())][-1:]
            assert said in line
            assert not (tmp_path / "r").exists()

    def test_vectors_are_refused(self) -> None:
        with pytest.raises(DataError, match="compares images, and this data is vectors"):
            vaezoo.create_model("vanilla", DataSpec(shape=(7,)), network="mlp", **SMALL)
