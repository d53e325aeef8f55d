"""Latents that are turned and shrunk together with their images (Kouzelis et al. 2025)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vaezoo import BaseVAE
from vaezoo.errors import OptionError


class View(NamedTuple):
    """Latents to decode, and the images that they should give: [n, ...] each; y: their labels."""

    z: Tensor
    x: Tensor
    y: Tensor | None


def make_views(view: View, fraction: float, downscale: int) -> list[View]:
    """The latents with their images, of which a fraction of the batch is transformed.

    Of the transformed, every other one is turned, and the others are turned and made smaller by
    `downscale`, as means of squares; with 1 all are only turned. A turn is a quarter, a half or
    three quarters, drawn for each example; a half where a side is longer than the other. Returns
    the view of full size, and that of the smaller ones if there are any.

    Kouzelis et al. (2025, equation 5) draw one transformation for a batch, and any scale. Here
    sizes depend on that of the batch alone, so that a step has the same shapes each time.
    """
    count = len(view.x)
    changed = max(1, round(fraction * count))
    smaller = changed // 2 if downscale > 1 else 0
    z, x = turn(view.z, view.x, count - changed)
    cut = count - smaller
    y = (None, None) if view.y is None else (view.y[:cut], view.y[cut:])
    views = [View(z[:cut], x[:cut], y[0])]
    if smaller:
        shrunk = [F.avg_pool2d(values[cut:], downscale) for values in (z, x)]
        views.append(View(shrunk[0], shrunk[1], y[1]))
    return views


def turn(z: Tensor, x: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Turn the examples from `start` on, latents and images alike, each by a turn of its own."""
    square = all(values.shape[-1] == values.shape[-2] for values in (z, x))
    turns = (1, 2, 3) if square else (2,)
    chosen = torch.randint(len(turns), (len(x) - start,), device=x.device)
    number = torch.arange(len(chosen), device=x.device)
    found = []
    for values in (z, x):
        each = torch.stack([values[start:].rot90(n, (-2, -1)) for n in turns])
        found.append(torch.cat([values[:start], each[chosen, number]]))
    return found[0], found[1]


def check_model(model: BaseVAE, downscale: int) -> None:
    """OptionError, in one line, unless the model can decode its latents turned and smaller."""
    shape = model.latent_shape
    if len(shape) != 3:
        raise OptionError(
            "--eq turns latents that lie on a grid: give --latent-grid, or a model that has one"
        )
    sides = (*shape[1:], *model.data.spatial_shape)
    if any(side % downscale for side in sides):
        raise OptionError(
            f"--eq-downscale {downscale} does not divide {'×'.join(map(str, shape[1:]))}, the grid "
            "of the latents, or the image: give another, or 1 for turns alone"
        )
    expected = (model.data.channels, *(side // downscale for side in model.data.spatial_shape))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            z = torch.zeros(1, shape[0], *(side // downscale for side in shape[1:]))
            y = torch.zeros(1, dtype=torch.int64, device=model.device)
            found = model.decode(z.to(model.device), model.labels(y)).mean.shape[1:]
    except RuntimeError:  # of a layer of fixed size
        found = torch.Size()
    finally:
        model.train(training)
    if found != expected:
        raise OptionError(
            "--eq: this decoder takes latents of one size only: give --eq-downscale 1 for turns "
            "alone, or another --network"
        )
