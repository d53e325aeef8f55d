"""The scaling factor of the latents of a run."""

from __future__ import annotations

import torch

from vaezoo.runs.run import Run

_EXAMPLES, _AT_ONCE = 64, 8


def scaling_factor(run: Run) -> float:
    """1 / std of the latents of training examples, so that diffusion gets latents of variance 1.

    Over all values (Rombach et al. 2022, appendix G), for 64 examples that are spread evenly over
    the split. The variance is that of the posterior means and the mean of the posterior variances,
    so that it has no noise. DataError or RunError if the data cannot be read.
    """
    split = run.splits.train
    rows = torch.linspace(0, len(split) - 1, min(_EXAMPLES, len(split))).long()
    means, variances = [], []
    for index in rows.split(_AT_ONCE):
        levels = split.get_batch(index.to(split.device))[0]
        found = run.encode(levels.cpu().float() / 255.0, what=["mean", "std"])
        means.append(found["mean"])
        variances.append(found["std"].square())
    variance = torch.cat(means).var() + torch.cat(variances).mean()
    return float(variance.clamp(min=1e-16).rsqrt())
