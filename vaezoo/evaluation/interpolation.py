"""From one example to another through the latent space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

InterpolationMethod = Literal["slerp", "linear"]

_PARALLEL = 1e-6
"""Below this angle the arc is the line."""


@dataclass(frozen=True)
class Interpolation:
    """a, b: the examples, [1, *data.shape]. latents and images of the way, one a step."""

    a: Tensor
    b: Tensor
    latents: Tensor
    images: Tensor

    def to_dict(self) -> dict[str, Any]:
        return {"steps": len(self.latents), "latents": self.latents.flatten(1).tolist()}


def interpolate(a: Tensor, b: Tensor, steps: int, way: InterpolationMethod = "slerp") -> Tensor:
    """Latents from a to b, both included: [steps, *latent_shape]. a, b: [1, *latent_shape].

    linear: along the line, which in many dimensions runs through a middle that the prior hardly
    ever draws. slerp: along the arc (Shoemake 1985), which keeps to the length of its ends where
    they are equally long (White 2016, section 2.1). Opposite ends have no arc of their own; the
    line stands in.
    """
    t = torch.linspace(0.0, 1.0, steps, device=a.device).view(-1, *[1] * (a.dim() - 1))
    if way == "linear":
        return torch.lerp(a, b, t)
    flat_a, flat_b = a.flatten().double().cpu(), b.flatten().double().cpu()
    lengths = float(flat_a.norm() * flat_b.norm())
    cosine = torch.dot(flat_a, flat_b) / max(lengths, 1e-300)
    angle = float(torch.arccos(cosine.clamp(-1.0, 1.0)))
    if not lengths or min(angle, torch.pi - angle) < _PARALLEL:
        return torch.lerp(a, b, t)
    sine = torch.sin(torch.tensor(angle))
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine
