"""The losses of a discriminator and of its opponent, their weight and their regularisation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.distributed import all_reduce, world_size
from vaezoo.errors import OptionError
from vaezoo.models.distributions import to_float32

Form = Literal["hinge", "vanilla", "non_saturating"]


def discriminator_loss(form: Form, real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator minimises: 0-dim.

    hinge: ½ E max(0, 1 - real) + ½ E max(0, 1 + fake) (Lim & Ye 2017). vanilla, non_saturating:
    ½ of the cross-entropy, log 2 at chance. real, fake: logits of any shape.
    """
    if form == "hinge":
        return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_loss(form: Form, fake: Tensor) -> Tensor:
    """What the model minimises against the discriminator, by example: [batch].

    non_saturating: -log D = softplus(-fake) (Goodfellow et al. 2014, section 3). hinge, vanilla:
    -fake, as in the published code of VQGAN. fake: logits, [batch, ...]; means over patches.
    """
    each = F.softplus(-fake) if form == "non_saturating" else -fake
    return each.flatten(1).mean(1)


def r1_penalty(logits: Tensor, x: Tensor) -> Tensor:
    """½ ‖∇ D(x)‖², by example: [batch] (Mescheder et al. 2018, equation 9, without gamma).

    logits: of x, [batch, ...]; D is their mean over patches. x: requires a gradient.
    """
    scores = logits.flatten(1).mean(1).sum()
    (gradient,) = torch.autograd.grad(scores, x, create_graph=True)
    return 0.5 * to_float32(gradient).square().flatten(1).sum(1)


class LeCam(nn.Module):
    """E max(0, real - ᾱ_fake)² + E max(0, ᾱ_real - fake)² with moving averages ᾱ of the logits.

    Tseng et al. (2021, equation 5), with the hinges of their published code: each logit is pulled
    towards the average of the others as long as it is on the right side of it. Before the first
    update the averages are those of the batch.
    """

    ema_real: Tensor
    ema_fake: Tensor
    updates: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("ema_real", torch.zeros(()))
        self.register_buffer("ema_fake", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor, started: Tensor) -> None:
        """Move the averages to the logits of all processes, if `started`, 0-dim bool."""
        means = torch.stack([real.mean(), fake.mean()])
        means = all_reduce(means) / world_size()
        keep = torch.where(self.updates > 0, self.decay, 0.0).to(means)
        for average, mean in zip((self.ema_real, self.ema_fake), means, strict=True):
            moved = keep * average + (1.0 - keep) * mean
            average.copy_(torch.where(started, moved, average))
        self.updates.add_(started)

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        above = F.relu(real - self.ema_fake).square().mean()
        return above + F.relu(self.ema_real - fake).square().mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, weight: nn.Parameter) -> Tensor:
    """λ = ‖∇ reconstruction‖ / (‖∇ adversarial‖ + 1e-4), at most 1e4: 0-dim, without a gradient.

    Esser et al. (2021, equation 7), with the constants of their published code. The gradients are
    those at the weight of a layer, of the mean over all processes. Both losses: 0-dim. OptionError
    if a loss does not depend on the weight.
    """
    norms = []
    for loss in (reconstruction, adversarial):
        (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise OptionError(
                "--adaptive-weight: images do not depend on the decoder's last layer: give "
                "--no-adaptive-weight"
            )
        norms.append((all_reduce(to_float32(gradient)) / world_size()).norm())
    return (norms[0] / (norms[1] + 1e-4)).clamp(max=1e4).detach()
