"""Three regularisers that make a decoder smooth (Ghosh et al. 2019, section 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from vaezoo.distributed import full_tensor


def squared_norm(network: nn.Module) -> Tensor:
    """The sum of the squares of all parameters of a network (Tikhonov): 0-dim."""
    return torch.stack([full_tensor(p).square().sum() for p in network.parameters()]).sum()


# torch.compile has no second derivative.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def gradient_penalty(
    decode: Callable[[Tensor], Distribution], z: Tensor
) -> tuple[Distribution, Tensor]:
    """p(x|z), and ‖∂ mean / ∂z‖² (Frobenius) of each example: [batch].

    Estimated by one random projection: E ‖vᵀ J‖² = ‖J‖² for v of independent unit Gaussians
    (Hutchinson 1990), at the cost of one backward pass. z: [batch, *latent]. The penalty can be
    differentiated; it is also computed under torch.no_grad.
    """
    with torch.enable_grad():
        if not z.requires_grad:
            z = z.detach().requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            likelihood = decode(z)
        mean = likelihood.mean
        (gradient,) = torch.autograd.grad(mean, z, torch.randn_like(mean), create_graph=True)
    return likelihood, gradient.flatten(1).square().sum(1)


def limit_spectrum(network: nn.Module) -> None:
    """Apply spectral norm to every linear and convolutional layer.

    Miyato et al. 2018, algorithm 1: the largest singular value of each weight becomes 1. A layer
    that already has it is left as it is.
    """
    for layer in list(network.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)) and not is_parametrized(
            layer, "weight"
        ):
            spectral_norm(layer)
