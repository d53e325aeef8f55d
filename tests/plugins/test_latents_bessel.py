"""The Bessel functions behind the sphere, against mpmath's at fifty digits."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import pytest
import torch
from torch import Tensor

from vaezoo_latents.bessel import _DEBYE, log_mgf

DIMENSIONS = (2, 3, 4, 5, 10, 41, 62, 63, 128, 1000)
CONCENTRATIONS = (1e-8, 1e-3, 0.1, 1.0, 7.0, 30.0, 100.0, 1e3, 1e4, 1e6)


def exact(kappa: float, m: int) -> tuple[float, float]:
    """log 0F1(; m/2; κ²/4) and its derivative, by the Bessel functions themselves."""
    with mpmath.workdps(50):
        half, k = mpmath.mpf(m) / 2, mpmath.mpf(kappa)
        below = mpmath.besseli(half - 1, k)
        value = mpmath.log(mpmath.gamma(half) * (2 / k) ** (half - 1) * below)
        return float(value), float(mpmath.besseli(half, k) / below)


@pytest.mark.parametrize("m", DIMENSIONS)
def test_are_those_of_mpmath_to_eight_digits(m: int) -> None:
    kappa = torch.tensor(CONCENTRATIONS, dtype=torch.float64)
    value, ratio = log_mgf(kappa, m)
    expected = torch.tensor([exact(k, m) for k in CONCENTRATIONS], dtype=torch.float64)
    assert torch.allclose(value, expected[:, 0], rtol=1e-8, atol=1e-15)
    assert torch.allclose(ratio, expected[:, 1], rtol=1e-8, atol=0)


@pytest.mark.parametrize("m", [2, 3, 10, 200])
def test_at_zero_nothing_is_undefined(m: int) -> None:
    kappa = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    value, ratio = log_mgf(kappa, m)
    assert (value.item(), ratio.item()) == (0.0, 0.0)
    slopes = [torch.autograd.grad(out, kappa, retain_graph=True)[0] for out in (value, ratio)]
    assert slopes[0].item() == 0.0
    assert slopes[1].item() == pytest.approx(1 / m)


@pytest.mark.parametrize("m", [2, 3, 10, 63, 200])
def test_derivatives_are_the_differences(m: int) -> None:
    kappa = torch.tensor([0.01, 0.5, 3.0, 40.0, 500.0], dtype=torch.float64, requires_grad=True)
    step = 1e-5 * kappa.detach()
    outs = zip(
        log_mgf(kappa, m),
        log_mgf(kappa + step, m),
        log_mgf(kappa - step, m),
        strict=True,
    )
    for out, up, down in outs:
        (slope,) = torch.autograd.grad(out.sum(), kappa, retain_graph=True)
        assert torch.allclose(slope, ((up - down) / (2 * step)).detach(), rtol=1e-5)


def test_in_three_dimensions_they_are_elementary() -> None:
    """Λ = log(sinh κ / κ), A = coth κ − 1/κ."""
    kappa = torch.tensor([0.3, 2.0, 9.0], dtype=torch.float64)
    value, ratio = log_mgf(kappa, 3)
    assert torch.allclose(value, (torch.sinh(kappa) / kappa).log(), rtol=1e-8)
    assert torch.allclose(ratio, 1 / torch.tanh(kappa) - 1 / kappa, rtol=1e-8)


def test_single_precision_goes_in_and_its_gradient_comes_out() -> None:
    kappa = torch.tensor([2.0, 1e4], requires_grad=True)
    value, ratio = log_mgf(kappa, 8)
    assert value.dtype == torch.float64
    (value + ratio).sum().backward()
    grad: Tensor | None = kappa.grad
    assert grad is not None
    assert grad.dtype == torch.float32
    assert math.isclose(grad[1].item(), ratio[1].item(), rel_tol=1e-4)


def test_coefficients_are_those_of_the_recurrence() -> None:
    """Abramowitz & Stegun 1964, 9.3.10, in exact fractions of powers of t:

    u_k+1(t) = t² (1 − t²) u_k'(t) / 2 + ∫ from 0 to t of (1 − 5 s²) u_k(s) ds / 8.
    """
    u = {0: Fraction(1)}
    for k, coefficients in enumerate(_DEBYE, start=1):
        following: dict[int, Fraction] = {}
        for power, value in u.items():
            for to, factor in (
                (power + 1, Fraction(power, 2) + Fraction(1, 8 * (power + 1))),
                (power + 3, -Fraction(power, 2) - Fraction(5, 8 * (power + 3))),
            ):
                following[to] = following.get(to, Fraction(0)) + factor * value
        u = following
        assert sorted(u) == [k + 2 * i for i in range(k + 1)]
        assert list(coefficients) == [float(u[power]) for power in sorted(u)]
