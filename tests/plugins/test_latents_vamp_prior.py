"""VampPrior: the prior is the mean posterior of its pseudo-inputs, density and samples alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vaezoo import BaseVAE, Batch, DataSpec, StepContext, create_model
from vaezoo.errors import OptionError
from vaezoo.models.distributions import kl_divergence, log_mean_exp
from vaezoo_latents.vamp_prior import VampPriorVAE

CONTEXT = StepContext(torch.tensor(0), 1, 16)
IMAGE = DataSpec(shape=(1, 12, 10), domain="binary")


def model(data: DataSpec = IMAGE, **options: Any) -> VampPriorVAE:
    torch.manual_seed(0)
    given = {"network": "mlp", "hidden": (16,), "latent_dim": 3, "pseudo_inputs": 5}
    built = create_model("vamp_prior", data, **{**given, "pseudo_std": 0.5, **options})
    assert isinstance(built, VampPriorVAE)
    return built


def images(n: int = 16, data: DataSpec = IMAGE) -> Tensor:
    return torch.rand(n, *data.shape, generator=torch.manual_seed(1)).round()


def spread(built: BaseVAE) -> None:
    """Make the encoder's answers differ widely, far from a standard Gaussian."""
    head = built.encoder[-1]
    with torch.no_grad():
        head.weight.mul_(6.0)
        head.bias[: len(head.bias) // 2].add_(4.0)


class TestPrior:
    @pytest.mark.parametrize("network", ["conv", "resnet", "mlp", "gated_mlp"])
    def test_is_the_mean_posterior_of_the_pseudo_inputs(self, network: str) -> None:
        built = model(network=network, hidden=(4, 4)).eval()
        spread(built)
        z = 3 * torch.randn(7, 3) + 4
        each = torch.stack([built.encode(u[None]).log_prob(z) for u in built.pseudo_inputs()])
        assert torch.allclose(built.prior().log_prob(z), log_mean_exp(each, 0), atol=1e-4)

    def test_of_one_pseudo_input_is_its_posterior(self) -> None:
        built = model(pseudo_inputs=1).eval()
        spread(built)
        x = images(500)
        only, posterior = built.encode(built.pseudo_inputs()), built.encode(x)
        closed = kl_divergence(posterior, only, posterior.mean)
        torch.manual_seed(0)
        estimates = torch.stack(
            [kl_divergence(posterior, built.prior(), posterior.rsample()) for _ in range(400)]
        )
        error = 5 * estimates.std(0) / 400**0.5
        assert ((estimates.mean(0) - closed).abs() < error + 1e-3).all()

    def test_samples_come_from_it_and_not_from_a_standard_gaussian(self) -> None:
        built = model().eval()
        spread(built)
        seen: list[Tensor] = []
        built.decoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        torch.manual_seed(0)
        built.sample(20_000)
        components = built.encode(built.pseudo_inputs())
        mean = components.mean.mean(0)
        square = (components.mean.square() + components.variance).mean(0)
        assert (mean.abs() > 1).all()
        assert torch.allclose(seen[0].mean(0), mean, rtol=0, atol=0.15)
        assert torch.allclose(seen[0].square().mean(0), square, rtol=0.05)

    def test_its_kl_is_zero_where_the_posterior_is_the_prior(self) -> None:
        built = model(pseudo_inputs=1).eval()
        posterior = built.encode(built.pseudo_inputs())
        rate = kl_divergence(posterior, built.prior(), posterior.rsample())
        assert torch.allclose(rate, torch.zeros(1), atol=1e-4)


class TestPseudoInputs:
    def test_start_where_they_are_told(self) -> None:
        start = model(pseudo_inputs=400, pseudo_mean=0.3, pseudo_std=0.02).pseudo_inputs()
        assert start.shape == (400, 1, 12, 10)
        assert start.mean().item() == pytest.approx(0.3, abs=1e-3)
        assert start.std().item() == pytest.approx(0.02, rel=0.02)

    @pytest.mark.parametrize("domain", ["binary", "unit"])
    def test_are_kept_between_0_and_1(self, domain: Any) -> None:
        inputs = model(DataSpec(shape=(3, 8, 8), domain=domain), pseudo_std=2.0).pseudo_inputs()
        assert (inputs.min().item(), inputs.max().item()) == (0.0, 1.0)

    def test_of_real_data_are_not(self) -> None:
        inputs = model(DataSpec(shape=(9,), domain="real"), pseudo_std=2.0).pseudo_inputs()
        assert inputs.min() < -1
        assert inputs.max() > 1.5

    def test_of_counts_are_not_below_0(self) -> None:
        inputs = model(DataSpec(shape=(9,), domain="count"), pseudo_std=2.0).pseudo_inputs()
        assert inputs.min() == 0
        assert inputs.max() > 1

    def test_learn(self) -> None:
        built = model(pseudo_mean=0.5, pseudo_std=0.1)
        assert built.loss is not None
        built.loss(built, Batch(images()), CONTEXT).loss.backward()
        assert built.pseudo.grad is not None
        assert (built.pseudo.grad != 0).any(dim=0).float().mean() > 0.9


class TestBatchNorm:
    """The pseudo-inputs see the statistics of the data, and leave them alone."""

    def trained(self) -> VampPriorVAE:
        built = model(network="conv", hidden=(4, 4)).train()
        for _ in range(20):
            built.encoder(images(32))
        return built

    def test_the_prior_is_the_same_in_training_and_evaluation(self) -> None:
        built = self.trained()
        z = torch.randn(6, 3)
        in_training = built.prior().log_prob(z)
        assert all(part.training for part in built.modules())
        assert torch.allclose(in_training, built.eval().prior().log_prob(z), atol=1e-5)

    def test_pseudo_inputs_do_not_move_the_statistics(self) -> None:
        built = self.trained()
        before = {name: buffer.clone() for name, buffer in built.named_buffers()}
        built.prior()
        for name, buffer in built.named_buffers():
            assert buffer.equal(before[name]), name
        built(images())
        assert not built.get_buffer("encoder.0.1.1.running_mean").equal(
            before["encoder.0.1.1.running_mean"]
        )

    def test_no_component_depends_on_another(self) -> None:
        built = self.trained()
        whole = built.prior().loc
        with torch.no_grad():
            built.pseudo[1:].uniform_()
        assert torch.allclose(built.prior().loc[0], whole[0], atol=1e-6)

    def test_a_pass_of_the_data_between_prior_and_backward_does_no_harm(self) -> None:
        """Autograd does not notice that batch norm updates its statistics in place."""
        built = self.trained()
        z, gradients = torch.randn(6, 3), []
        for passes in (0, 3):
            prior = built.prior()
            for _ in range(passes):
                built.encode(1 - images())
            gradients.append(torch.autograd.grad(prior.log_prob(z).sum(), built.pseudo)[0])
        assert torch.allclose(*gradients, rtol=1e-4)


def test_a_grid_of_latents_is_refused_in_a_line() -> None:
    data = DataSpec(shape=(1, 16, 16))
    with pytest.raises(OptionError, match="leave latent_grid out"):
        model(data, network="conv", hidden=(8, 8), latent_grid=True)
