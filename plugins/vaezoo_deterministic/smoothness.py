"""Three ways to ask for a smooth decoder (Ghosh et al. 2019, section 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from vaezoo.distributed import full_tensor


def squared_norm(network: nn.Module) -> Tensor:
    """The sum of the squares of all parameters of a network (Tikhonov): 0-dim."""
    return torch.stack([full_tensor(p).square().sum() for p in network.parameters()]).sum()


# What is compiled has no second derivative.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def gradient_penalty(
    decode: Callable[[Tensor], Distribution], z: Tensor
) -> tuple[Distribution, Tensor]:
    """p(x|z), and ‖∂ mean / ∂z‖² (Frobenius) of each example: [batch].

    By one random projection: for v of independent unit Gaussians E ‖vᵀ J‖² = ‖J‖² (Hutchinson
    1990), at the cost of one backward pass. z: [batch, *latent]. The penalty has gradients of its
    own where gradients are enabled; the value is the same where they are not.
    """
    with torch.enable_grad():
        if not z.requires_grad:
            z = z.detach().requires_grad_()
        likelihood = decode(z)
        mean = likelihood.mean
        (slope,) = torch.autograd.grad(mean, z, torch.randn_like(mean), create_graph=True)
    return likelihood, slope.flatten(1).square().sum(1)


def limit_spectrum(network: nn.Module) -> None:
    """Give every linear and convolutional weight a largest singular value of 1, for good.

    The weight, as a matrix with a row an output channel, is divided by its largest singular value,
    which a step of power iteration follows in training (Miyato et al. 2018, algorithm 1). A layer
    that is limited already stays as it is.
    """
    for layer in list(network.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)) and not is_parametrized(
            layer, "weight"
        ):
            spectral_norm(layer)
