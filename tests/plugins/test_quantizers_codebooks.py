"""SimVQ, IBQ and soft codes: values and gradients by hand, in parts as in one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.nn import functional as F

from vaezoo_discrete.quantizer import Quantized, Quantizer
from vaezoo_quantizers.ibq import IndexQuantizer
from vaezoo_quantizers.simvq import LinearCodebookQuantizer
from vaezoo_quantizers.soft import SoftQuantizer

CODES, WIDTH = 9, 4


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def features(n: int = 3) -> Tensor:
    made = torch.randn(n, WIDTH, 2, 5, generator=torch.Generator().manual_seed(1))
    return made.requires_grad_()


def rows(grid: Tensor) -> Tensor:
    return grid.movedim(1, -1).flatten(0, -2)


class TestSimVQ:
    def test_only_the_map_is_trained_and_moves_every_code(self) -> None:
        quantizer, x = LinearCodebookQuantizer(CODES, WIDTH), features()
        assert [name for name, _ in quantizer.named_parameters()] == ["map.weight"]
        before, frozen = quantizer.codes.detach(), quantizer.frozen.clone()
        optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.01)
        output = quantizer(x)
        assert len(output.indices.unique()) < CODES
        output.losses["codebook"].mean().backward()
        optimizer.step()
        assert quantizer.frozen.equal(frozen)
        assert ((quantizer.codes - before).abs().amax(1) > 1e-4).all()

    def test_the_gradient_is_the_one_through_the_whole_codebook(self) -> None:
        quantizer, x = LinearCodebookQuantizer(CODES, WIDTH), features()
        output = quantizer(x)
        (found,) = torch.autograd.grad(output.losses["codebook"].sum(), quantizer.map.weight)
        codes = quantizer.codes[output.indices.flatten()]
        whole = (rows(x).detach() - codes).square().sum()
        (expected,) = torch.autograd.grad(whole, quantizer.map.weight)
        torch.testing.assert_close(found, expected)


class TestIBQ:
    def test_the_code_has_the_largest_inner_product(self) -> None:
        quantizer, x = IndexQuantizer(CODES, WIDTH), features()
        quantized, indices, _ = quantizer(x)
        best = (rows(x) @ quantizer.codebook.T).argmax(1)
        assert indices.flatten().equal(best)
        torch.testing.assert_close(rows(quantized), quantizer.codebook[best])

    def test_every_code_has_the_gradient_of_its_probability(self) -> None:
        """one_hot + p − sg[p], written out as a matrix of all positions and codes."""
        quantizer, x = IndexQuantizer(CODES, WIDTH, temperature=0.3), features()
        output = quantizer(x)
        weight = torch.randn_like(x)
        p = (rows(x) @ quantizer.codebook.T).softmax(1)
        one_hot = F.one_hot(p.argmax(1), CODES) + p - p.detach()
        whole = one_hot @ quantizer.codebook
        both = [x, quantizer.codebook]
        found = torch.autograd.grad((weight * output.quantized).sum(), both, retain_graph=True)
        expected = torch.autograd.grad((rows(weight) * whole).sum(), both, retain_graph=True)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert (found[1].abs().amax(1) > 1e-4).all()
        # The term `index` is the distance with the gradient of the quantized features.
        found = torch.autograd.grad(output.losses["index"].sum(), both)
        expected = torch.autograd.grad((rows(x) - whole).square().sum(), both)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    def test_entropies_are_of_the_softmax_at_the_temperature(self) -> None:
        quantizer, x = IndexQuantizer(CODES, WIDTH, temperature=0.3), features()
        losses = quantizer(x).losses
        p = (rows(x) @ quantizer.codebook.T / 0.3).softmax(1)
        of_each = Categorical(p).entropy().view(3, -1).sum(1)
        torch.testing.assert_close(losses["entropy"], of_each)
        torch.testing.assert_close(losses["batch_entropy"], 10 * Categorical(p.mean(0)).entropy())

    def test_without_a_temperature_there_are_no_entropies(self) -> None:
        quantizer = IndexQuantizer(CODES, WIDTH, temperature=None)
        assert {*quantizer(features()).losses} == {"commitment", "codebook", "index"}
        assert not quantizer.batch_statistics


class TestSoft:
    def test_is_the_mean_of_unit_codes_by_their_distance(self) -> None:
        quantizer, x = SoftQuantizer(CODES, WIDTH, temperature=0.5), features()
        quantized, indices, losses = quantizer(x)
        u, codes = F.normalize(rows(x), dim=1), F.normalize(quantizer.codebook, dim=1)
        p = (-torch.cdist(u, codes).square() / 0.5).softmax(1)
        torch.testing.assert_close(rows(quantized), p @ codes, rtol=1e-4, atol=1e-5)
        assert indices.flatten().equal(p.argmax(1))
        of_each = Categorical(p).entropy().view(3, -1).sum(1)
        torch.testing.assert_close(losses["entropy"], of_each, rtol=1e-4, atol=1e-5)
        of_batch = 10 * Categorical(p.mean(0)).entropy()
        torch.testing.assert_close(losses["batch_entropy"], of_batch, rtol=1e-4, atol=1e-5)

    def test_cold_mixtures_are_codes(self) -> None:
        quantizer, x = SoftQuantizer(CODES, WIDTH, temperature=1e-4), features()
        quantized, indices, _ = quantizer(x)
        torch.testing.assert_close(quantized, quantizer.indices_to_codes(indices))

    def test_features_and_all_codes_learn_from_the_decoder(self) -> None:
        quantizer, x = SoftQuantizer(CODES, WIDTH, temperature=0.5), features()
        quantizer(x).quantized.square().sum().backward()
        assert x.grad is not None
        assert quantizer.codebook.grad is not None
        assert (x.grad.abs().amax((1, 2, 3)) > 0).all()
        assert (quantizer.codebook.grad.abs().amax(1) > 0).all()


@pytest.mark.parametrize("kind", [IndexQuantizer, SoftQuantizer])
def test_parts_that_fit_in_memory_give_the_same(
    kind: type[Quantizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven positions at a time; with no more than that many probabilities at once."""
    quantizer, x = kind(CODES, WIDTH), features()

    def everything() -> tuple[Quantized, tuple[Tensor, ...]]:
        output = quantizer(x)
        total = output.quantized.square().sum() + sum(v.sum() for v in output.losses.values())
        return output, torch.autograd.grad(total, [x, *quantizer.parameters()])

    whole, gradients = everything()
    monkeypatch.setattr("vaezoo_quantizers.entropy._MAX_PROBABILITIES", 7 * CODES)
    parts, others = everything()
    assert parts.indices.equal(whole.indices)
    torch.testing.assert_close(parts.quantized, whole.quantized)
    torch.testing.assert_close(parts.losses, whole.losses)
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-5)
