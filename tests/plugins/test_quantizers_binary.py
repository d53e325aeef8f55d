"""LFQ and BSQ: signs, bits of an index, entropies in closed form and by enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from vaezoo_quantizers.binary import BinaryQuantizer
from vaezoo_quantizers.entropy import binary_entropy, entropy


def features(width: int, n: int = 4, scale: float = 1.0) -> Tensor:
    made = torch.randn(n, width, 2, 3, generator=torch.Generator().manual_seed(1))
    return (scale * made).requires_grad_()


def every_code(bits: int, amplitude: float) -> Tensor:
    """All codes in the order of their indices, [2 ** bits, bits]: the first bit is the lowest."""
    signs = [signs[::-1] for signs in itertools.product((-1.0, 1.0), repeat=bits)]
    return amplitude * torch.tensor(signs)


def assignments(quantizer: BinaryQuantizer, x: Tensor) -> Tensor:
    """softmax(−‖u − c‖² / temperature) over all codes: [batch, positions, codebooks, codes]."""
    u = torch.nn.functional.normalize(x, dim=1) if quantizer.spherical else x
    groups = u.flatten(2).mT.unflatten(-1, (quantizer.codebooks, quantizer.bits))
    codes = every_code(quantizer.bits, quantizer.amplitude)
    distances = (groups.unsqueeze(-2) - codes).square().sum(-1)
    return (-distances / quantizer.temperature).softmax(-1)


class TestCodes:
    def test_are_signs_and_zero_is_negative(self) -> None:
        x = torch.tensor([0.3, -2.0, 0.0, 5.0]).view(1, 4, 1, 1)
        quantized, indices, _ = BinaryQuantizer(4)(x)
        assert quantized.flatten().tolist() == [1, -1, -1, 1]
        assert indices.item() == 1 + 8  # Yu et al. 2023, equation 4: bit i counts 2 ** i

    def test_of_the_sphere_are_unit_vectors_nearest_to_the_features(self) -> None:
        quantizer, x = BinaryQuantizer(5, spherical=True), features(5)
        quantized, indices, _ = quantizer(x)
        assert torch.allclose(quantized.norm(dim=1), torch.ones(()))
        codes = every_code(5, 1 / math.sqrt(5))
        cosines = torch.einsum("bdhw,kd->bkhw", x, codes)
        assert indices.equal(cosines.argmax(1))
        again = quantizer(7 * x)
        assert again.indices.equal(indices)
        assert torch.allclose(again.quantized, quantized, atol=1e-6)

    def test_all_are_unit_vectors_with_several_codebooks_too(self) -> None:
        one, two = BinaryQuantizer(8, spherical=True), BinaryQuantizer(4, 2, spherical=True)
        x = features(8)
        assert one(x).quantized.equal(two(x).quantized)
        digits = two(x).indices
        assert one(x).indices.equal(digits[:, 0] + 16 * digits[:, 1])

    def test_gradient_of_the_sphere_is_that_of_the_unit_vector(self) -> None:
        """Straight through the sign, but not through the scaling: it is tangential."""
        x = features(6)
        (found,) = torch.autograd.grad(
            BinaryQuantizer(6, spherical=True)(x).quantized.pow(2).sum() * 0
            + (torch.ones_like(x) * BinaryQuantizer(6, spherical=True)(x).quantized).sum(),
            x,
        )
        assert (found * x).sum(1).abs().max() < 1e-5
        assert found.abs().max() > 0.1

    def test_nothing_is_learned_or_saved(self) -> None:
        assert BinaryQuantizer(10).state_dict() == {}


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize(("bits", "codebooks"), [(1, 1), (5, 1), (6, 1), (3, 2)])
class TestEntropies:
    def made(self, bits: int, codebooks: int, spherical: bool, joint: bool) -> BinaryQuantizer:
        return BinaryQuantizer(
            bits, codebooks, spherical=spherical, temperature=0.7, joint_entropy=joint
        )

    def test_of_each_position_by_enumeration(
        self, bits: int, codebooks: int, spherical: bool
    ) -> None:
        quantizer, x = self.made(bits, codebooks, spherical, True), features(bits * codebooks)
        expected = Categorical(assignments(quantizer, x)).entropy().flatten(1).sum(1)
        losses = quantizer(x).losses
        torch.testing.assert_close(losses["entropy"], expected, rtol=1e-4, atol=1e-5)
        (found,) = torch.autograd.grad(losses["entropy"].sum(), x)
        (slope,) = torch.autograd.grad(expected.sum(), x)
        torch.testing.assert_close(found, slope, rtol=1e-3, atol=1e-4)

    def test_of_the_batch_by_enumeration(self, bits: int, codebooks: int, spherical: bool) -> None:
        quantizer, x = self.made(bits, codebooks, spherical, True), features(bits * codebooks)
        mean = assignments(quantizer, x).mean((0, 1))
        expected = 6 * Categorical(mean).entropy().sum()
        found = quantizer(x).losses["batch_entropy"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        slopes = [torch.autograd.grad(value, x)[0] for value in (found, expected)]
        torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-5)

    def test_of_the_batch_by_bits(self, bits: int, codebooks: int, spherical: bool) -> None:
        """Zhao et al. 2024: the sum of the entropies of the bits, at least that of the codes."""
        quantizer, x = self.made(bits, codebooks, spherical, False), features(bits * codebooks)
        codes = every_code(bits, 1.0)
        probs = assignments(quantizer, x).mean((0, 1))  # [codebooks, codes]
        positive = probs @ (codes > 0).float()
        expected = 6 * Bernoulli(positive).entropy().sum()
        found = quantizer(x).losses["batch_entropy"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        joint = self.made(bits, codebooks, spherical, True)(x).losses["batch_entropy"]
        assert joint <= found + 1e-5


def test_gradients_are_finite_where_all_is_sure() -> None:
    quantizer, x = BinaryQuantizer(6, temperature=0.001), features(6, scale=50.0)
    losses = quantizer(x).losses
    (slope,) = torch.autograd.grad(losses["entropy"].sum() - losses["batch_entropy"], x)
    assert slope.isfinite().all()
    assert losses["entropy"].max() < 1e-6


def test_entropy_is_the_one_of_torch() -> None:
    probs = torch.rand(5, 7).softmax(1)
    assert torch.allclose(entropy(probs), Categorical(probs).entropy(), atol=1e-6)
    logits = torch.randn(9)
    assert torch.allclose(binary_entropy(logits), Bernoulli(logits=logits).entropy(), atol=1e-6)


def test_sixteen_bits_hold_no_probability_of_each_code_and_position() -> None:
    """2 ** 16 codes at 192 positions would be 48 MiB, and those of 20 bits more than memory."""
    quantizer, seen = BinaryQuantizer(16), []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            found = func(*args, **(kwargs or {}))
            if isinstance(found, Tensor):
                seen.append(found.numel())
            return found

    with Watch():
        x = torch.randn(2, 16, 12, 8, requires_grad=True)
        losses = quantizer(x).losses
        (losses["entropy"].sum() - losses["batch_entropy"]).backward()
    assert max(seen) <= max(2**16, 2 * 96 * 2**8)
