"""How near a reconstruction is to its original, an image at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


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
    return (luminance * structure).flatten(1).mean(1)


def gaussian_window(size: int, like: Tensor) -> Tensor:
    """Weights of a Gaussian that sum to 1: [size], size rounded down to an odd number."""
    half = (size - 1) // 2
    weights = torch.tensor(
        [math.exp(-(i * i) / (2 * _SIGMA**2)) for i in range(-half, half + 1)],
        dtype=like.dtype,
        device=like.device,
    )
    return weights / weights.sum()
