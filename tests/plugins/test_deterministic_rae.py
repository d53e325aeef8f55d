"""Tests of the regularisers of a RAE: each against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import vaezoo
from vaezoo import BaseVAE, Batch, LossOutput, StepContext
from vaezoo.checkpoint.format import load_into, load_weights, save_weights
from vaezoo.models.distributions import diagonal_normal
from vaezoo_deterministic.losses import RAELoss
from vaezoo_deterministic.smoothness import gradient_penalty, limit_spectrum, squared_norm

CONTEXT = StepContext(torch.tensor(0), 10, 100)


def build(**options: Any) -> BaseVAE:
    torch.manual_seed(0)
    return vaezoo.create_model("rae", (1, 10, 12), latent_dim=4, hidden=(4, 6), **options)


def images(n: int = 5) -> Tensor:
    return torch.rand(n, 1, 10, 12, generator=torch.Generator().manual_seed(1))


def run(model: BaseVAE, x: Tensor) -> LossOutput:
    output: LossOutput = model.loss(model, Batch(x), CONTEXT)
    return output


def decoder() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6)).double()


def likelihood(of: nn.Module, z: Tensor) -> Distribution:
    return diagonal_normal(of(z), torch.ones((), dtype=z.dtype))


class TestObjective:
    def test_is_the_sum_of_its_terms_in_nats(self) -> None:
        model, x = build(latent_weight=0.7, decoder_weight=0.3).eval(), images()
        objective, terms = run(model, x)
        z = model.encode(x).mean
        assert list(terms) == ["distortion", "latent_penalty", "decoder_penalty"]
        assert torch.allclose(terms["latent_penalty"], 0.35 * z.square().sum(1))
        weights = sum(p.square().sum() for p in model.decoder.parameters())
        assert torch.allclose(terms["decoder_penalty"], 0.3 * weights)
        distortion = -model.decode(z).log_prob(x)
        assert torch.allclose(terms["distortion"], distortion)
        by_hand = distortion.mean() + 0.35 * z.square().sum(1).mean() + 0.3 * weights
        assert torch.allclose(objective, by_hand)

    @pytest.mark.parametrize("regulariser", ["none", "spectral_norm"])
    def test_without_a_regulariser_there_is_no_term_of_it(self, regulariser: str) -> None:
        objective, terms = run(build(regulariser=regulariser), images())
        assert list(terms) == ["distortion", "latent_penalty"]
        assert torch.allclose(objective, sum(term.mean() for term in terms.values()))

    @pytest.mark.parametrize("regulariser", ["l2", "gradient_penalty"])
    def test_the_regulariser_has_a_weight_of_its_own(self, regulariser: str) -> None:
        x, values = images(), []
        for weight in (None, {"l2": 0.001, "gradient_penalty": 0.05}[regulariser], 0.0):
            model = build(regulariser=regulariser, decoder_weight=weight).eval()
            torch.manual_seed(0)
            values.append(run(model, x).terms["decoder_penalty"].mean().item())
        assert values[0] == values[1] > values[2] == 0

    def test_the_norm_is_of_the_decoder_alone(self) -> None:
        model = build()
        penalty = run(model, images()).terms["decoder_penalty"]
        gradients = torch.autograd.grad(
            penalty, list(model.parameters()), materialize_grads=True, retain_graph=True
        )
        ours = {id(p) for p in model.decoder.parameters()}
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            expected = 0.002 * parameter if id(parameter) in ours else torch.zeros_like(parameter)
            assert torch.allclose(gradient, expected)


class TestGradientPenalty:
    def test_is_the_slope_along_the_direction_by_finite_differences(self) -> None:
        net, z = decoder(), torch.randn(4, 3, dtype=torch.float64)
        torch.manual_seed(7)
        _, penalty = gradient_penalty(lambda z: likelihood(net, z), z)
        torch.manual_seed(7)
        v = torch.randn_like(net(z))
        step = 1e-5
        by_hand = torch.zeros(4, dtype=torch.float64)
        for e in step * torch.eye(3, dtype=torch.float64):
            slope = ((net(z + e) - net(z - e)) * v).sum(1) / (2 * step)
            by_hand = by_hand + slope.square()
        assert torch.allclose(penalty, by_hand, rtol=1e-6, atol=1e-8)

    def test_is_the_norm_of_the_jacobian_on_average(self) -> None:
        net, z = decoder(), torch.randn(1, 3, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(net, z[0])
        many = z.expand(40_000, 3)
        _, penalty = gradient_penalty(lambda z: likelihood(net, z), many)
        assert penalty.shape == (40_000,)
        assert penalty.mean().item() == pytest.approx(jacobian.square().sum().item(), rel=0.03)

    def test_has_gradients_in_the_decoder_and_the_encoder(self) -> None:
        model = build(regulariser="gradient_penalty")
        penalty = run(model, images()).terms["decoder_penalty"].mean()
        first, last = model.encoder[0][1][0].weight, model.decoder[-1].weight
        for gradient in torch.autograd.grad(penalty, [first, last]):
            assert gradient.abs().max() > 0

    def test_second_derivatives_are_right(self) -> None:
        net, z = decoder(), torch.randn(4, 3, dtype=torch.float64)

        def penalty(weight: Tensor) -> Tensor:
            torch.manual_seed(7)
            call = torch.func.functional_call
            parameters = {**dict(net.named_parameters()), "0.weight": weight}
            return gradient_penalty(
                lambda z: diagonal_normal(call(net, parameters, (z,)), torch.ones(()).double()), z
            )[1]

        assert torch.autograd.gradcheck(penalty, (net[0].weight.detach().requires_grad_(),))

    def test_is_the_same_in_evaluation(self) -> None:
        model, x = build(regulariser="gradient_penalty").eval(), images()
        torch.manual_seed(0)
        with torch.no_grad():
            quiet = run(model, x)
        torch.manual_seed(0)
        loud = run(model, x)
        assert not quiet.loss.requires_grad
        assert torch.allclose(quiet.loss, loud.loss)
        assert quiet.terms["decoder_penalty"].max() > 0

    def test_a_smaller_one_is_what_training_makes(self) -> None:
        x, slopes = images(32), []
        for weight in (0.0, 1.0):
            model = build(regulariser="gradient_penalty", decoder_weight=weight, latent_weight=0)
            optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
            for _ in range(60):
                optimizer.zero_grad()
                run(model, x).loss.backward()
                optimizer.step()
            model.eval()
            z = model.encode(x).mean.detach()
            jacobians = torch.autograd.functional.jacobian(lambda z, m=model: m.decode(z).mean, z)
            slopes.append(jacobians.square().sum().item())
        assert slopes[1] < 0.5 * slopes[0]

    def test_its_gradient_is_the_same_in_a_compiled_step(self) -> None:
        """torch.compile has no second derivative, so the penalty stays out of it."""
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5))

        def step(z: Tensor) -> Tensor:
            torch.manual_seed(1)
            return gradient_penalty(lambda z: likelihood(net, z), z)[1].sum()

        gradients = []
        z = torch.randn(4, 3)
        for function in (step, torch.compile(step, backend="aot_eager")):
            gradients.append(torch.autograd.grad(function(z), net[0].weight)[0])
        assert torch.allclose(*gradients)


class TestSpectralNorm:
    def test_largest_singular_values_are_one(self) -> None:
        model = build(regulariser="spectral_norm")
        for _ in range(150):
            run(model, images())
        model.eval()
        layers = [m for m in model.decoder.modules() if hasattr(m, "parametrizations")]
        kinds = {type(layer).__name__ for layer in layers}
        assert len(layers) == 4
        assert any("ConvTranspose2d" in kind for kind in kinds)
        for layer in layers:
            outputs = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            matrix = layer.weight.movedim(outputs, 0).flatten(1)
            assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1.0, abs=1e-3)

    def test_only_the_decoder_is_limited_and_only_when_asked(self) -> None:
        assert not [n for n in build().state_dict() if "parametrizations" in n]
        names = [n for n in build(regulariser="spectral_norm").state_dict() if "original" in n]
        assert len(names) == 4
        assert all(name.startswith("decoder.") for name in names)

    def test_a_second_loss_limits_nothing_twice(self) -> None:
        model = build(regulariser="spectral_norm")
        names = list(model.state_dict())
        RAELoss(model.loss.options, model, model.data)
        limit_spectrum(model.decoder)
        assert list(model.state_dict()) == names

    def test_does_not_move_in_evaluation(self) -> None:
        model, x = build(regulariser="spectral_norm").eval(), images()
        state = {name: t.clone() for name, t in model.state_dict().items()}
        assert run(model, x).loss.equal(run(model, x).loss)
        assert all(t.equal(state[name]) for name, t in model.state_dict().items())

    def test_is_saved_and_read_again(self, tmp_path: Any) -> None:
        model, other = build(regulariser="spectral_norm"), build(regulariser="spectral_norm")
        run(model, images())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1)
        save_weights(tmp_path / "w.safetensors", model.state_dict())
        load_into(other, load_weights(tmp_path / "w.safetensors"), tmp_path)
        x = images()
        assert other.eval().reconstruct(x).equal(model.eval().reconstruct(x))


def test_squared_norm() -> None:
    assert squared_norm(nn.Linear(2, 1, bias=False).requires_grad_(False)).dim() == 0
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(2.0)
    assert squared_norm(net).item() == 4 * 9
