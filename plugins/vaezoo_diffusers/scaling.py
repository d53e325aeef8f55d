"""The scaling factor of the latents of a run."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from vaezoo.runs.run import Run

from .config import ModelConfig

_EXAMPLES, _AT_ONCE = 64, 8


@torch.no_grad()
def scaling_factor(run: Run, config: ModelConfig) -> float:
    """1 / std of the latents of training examples, so that diffusion gets latents of variance 1.

    Over all values (Rombach et al. 2022, appendix G), for 64 examples that are spread evenly over
    the split. The variance is that of the posterior means and the mean of the posterior variances,
    so that it has no noise. DataError or RunError if the data cannot be read.
    """
    split, encoder = run.splits.train, cast(nn.Module, run.model.encoder)
    rows = torch.linspace(0, len(split) - 1, min(_EXAMPLES, len(split))).long()
    means, variances = [], []
    for index in rows.split(_AT_ONCE):
        x = split.get_batch(index.to(split.device))[0].to(run.device).float() / 255.0
        if run.data_spec.domain == "binary":
            x = (x >= 0.5).float()
        mean, variance = config.moments(encoder(x))
        means.append(mean)
        variances.append(variance)
    total = torch.cat(means).var() + torch.cat(variances).mean()
    return float(total.clamp(min=1e-16).rsqrt())
