"""Similarity of images: MSE, PSNR, SSIM and MS-SSIM, a value for each image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_SMALLEST = _WINDOW * 2 ** (len(_SCALE_WEIGHTS) - 1)
"""The height and width from which the window fits at the coarsest of the five scales: 176."""
SSIM_SMALLEST = _WINDOW
"""The height and width from which the window fits at one scale."""


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error over each example's values: [n, *shape] twice, in; [n] out."""
    return (a - b).square().flatten(1).mean(1)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, values in [0, 1]: [n]. Infinite where a equals b."""
    return -10.0 * torch.log10(mse(a, b))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, equation 13): [n], at most 1.

    a, b: [n, channels, height, width] in [0, 1]. The window is a Gaussian of 11 pixels and
    standard deviation 1.5, applied where it lies wholly inside the image, a channel at a time;
    for images smaller than that it shrinks to the largest odd size that fits.
    """
    luminance, structure = _maps(a, b)
    return (luminance * structure).flatten(1).mean(1)


def ms_ssim_scales(side: int) -> int:
    """How many of the five scales an image has room for. side: its smaller side, from 11."""
    return max(n for n in range(1, len(_SCALE_WEIGHTS) + 1) if n == 1 or side >= _WINDOW << n - 1)


def ms_ssim(a: Tensor, b: Tensor, scales: int = len(_SCALE_WEIGHTS), floor: float = 0.0) -> Tensor:
    """Multi-scale structural similarity (Wang et al. 2003, equation 7): [n], from 0 to 1.

    a, b: [n, channels, height, width] in [0, 1]; with five scales both sides are 176 pixels or
    more. Scales are halved by the mean of 2×2 pixels, with the weights of section 3.2; contrast and
    structure of each scale, luminance of the coarsest alone; the mean over channels. Of fewer
    scales the first weights are taken, scaled to add up to 1. A similarity below `floor` counts as
    that: below 0 it has no such power, and at 0 the gradient is infinite.
    """
    weights = _SCALE_WEIGHTS[:scales]
    if scales < len(_SCALE_WEIGHTS):
        weights = tuple(weight / sum(weights) for weight in weights)
    result = a.new_ones(a.shape[:2])
    for number, weight in enumerate(weights):
        luminance, structure = _maps(a, b)
        coarsest = number == scales - 1
        similarity = luminance * structure if coarsest else structure
        result = result * similarity.flatten(2).mean(2).clamp(min=floor) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result.mean(1)


def _maps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, at each position of the window."""
    channels, height, width = a.shape[1:]
    window = gaussian_window(min(_WINDOW, height, width), a)

    def blur(image: Tensor) -> Tensor:
        across = window.expand(channels, 1, 1, -1)
        down = window.view(-1, 1).expand(channels, 1, -1, 1)
        return F.conv2d(F.conv2d(image, across, groups=channels), down, groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    variance_a = blur(a * a) - mean_a.square()
    variance_b = blur(b * b) - mean_b.square()
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    return luminance, structure


def gaussian_window(size: int, like: Tensor) -> Tensor:
    """Weights of a Gaussian that sum to 1: [size], size rounded down to an odd number."""
    half = (size - 1) // 2
    offsets = torch.arange(-half, half + 1, dtype=like.dtype, device=like.device)
    weights = (-offsets.square() / (2 * _SIGMA**2)).exp()
    return weights / weights.sum()
