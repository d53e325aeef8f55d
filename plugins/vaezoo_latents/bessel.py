"""The log-normalizer of the von Mises–Fisher distribution, and its derivative.

Λ(κ) = log E exp(κ w) is the log moment-generating function of w, the first coordinate of a uniform
point on the unit sphere of R^m:

    Λ = log ₀F₁(; m/2; κ²/4) = log[Γ(m/2) (2/κ)^(m/2 − 1) I_{m/2−1}(κ)],
    Λ' = A = I_{m/2}(κ) / I_{m/2−1}(κ),        Λ'' = 1 − A² − (m − 1) A / κ.

Λ is 0 at κ = 0, unlike log I, so no large numbers cancel. torch has I only for orders 0 and 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LARGE = 30.0
"""From this order on the expansion for large orders has nine correct digits at any argument."""

# u_1 to u_4 of Debye's expansion (Abramowitz & Stegun 1964, 9.3.9): u_k(t) is t^k times a
# polynomial in t², of which these are the coefficients, the constant first.
_DEBYE = (
    (3 / 24, -5 / 24),
    (81 / 1152, -462 / 1152, 385 / 1152),
    (30375 / 414720, -369603 / 414720, 765765 / 414720, -425425 / 414720),
    (
        4465125 / 39813120,
        -94121676 / 39813120,
        349922430 / 39813120,
        -446185740 / 39813120,
        185910725 / 39813120,
    ),
)


def log_mgf(concentration: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Λ and A of concentrations ≥ 0, in double precision where the device has it: [...] each.

    Both can be differentiated once.
    """
    wide = torch.float32 if concentration.device.type == "mps" else torch.float64
    value, ratio = _LogMGF.apply(concentration.to(wide), m)
    return value, ratio


class _LogMGF(torch.autograd.Function):
    @staticmethod
    def forward(kappa: Tensor, m: int) -> tuple[Tensor, Tensor]:
        order = 0.5 * m - 1
        steps = max(0, int(_LARGE - order + 1))
        value, r = _large_order(kappa, order + steps)
        # Recurrence down to the order m/2 − 1. With r = A·2(v + 1)/κ, which is between 0 and 1,
        # A_v = 1 / (A_{v+1} + 2(v + 1)/κ) and Λ_v = Λ_{v+1} − log r_v have no cancellation.
        for step in reversed(range(steps)):
            v = order + step
            excess = r * kappa.square() / (4 * (v + 1) * (v + 2))
            value, r = value + torch.log1p(excess), 1 / (1 + excess)
        return value, r * kappa / m

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[1])
        ctx.m = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        kappa, ratio = ctx.saved_tensors
        of_value, of_ratio = gradients
        # A / κ tends to 1 / m.
        slope = torch.where(kappa > 0, ratio / kappa, 1 / ctx.m)
        return of_value * ratio + of_ratio * (1 - ratio.square() - (ctx.m - 1) * slope), None


def _large_order(kappa: Tensor, v: float) -> tuple[Tensor, Tensor]:
    """Λ for m/2 − 1 = v, and r = A·2(v + 1)/κ, by Abramowitz & Stegun (1964), 9.7.7.

    The value at κ = 0 is subtracted from the expansion of log I_v(κ) term by term.
    """
    z = kappa / v
    root = torch.sqrt(1 + z.square())
    t = 1 / root
    excess = z.square() / (1 + root)  # root − 1
    series, slope = _debye(t, v)
    at_zero, _ = _debye(torch.ones_like(t), v)
    value = v * (excess - torch.log1p(0.5 * excess)) - 0.5 * torch.log1p(excess)
    value = value + torch.log(series / at_zero)
    r = t / (1 + t) - t.square() / (2 * v) - t.pow(3) * slope / (v * series)
    return value, (2 * (v + 1) / v) * r


def _debye(t: Tensor, v: float) -> tuple[Tensor, Tensor]:
    """Σ_k u_k(t) / v^k and its derivative by t."""
    series, slope = torch.ones_like(t), torch.zeros_like(t)
    for k, coefficients in enumerate(_DEBYE, start=1):
        for i, coefficient in enumerate(coefficients):
            power = k + 2 * i
            series = series + coefficient / v**k * t.pow(power)
            slope = slope + power * coefficient / v**k * t.pow(power - 1)
    return series, slope
