"""Distances between images: features of a network, LPIPS, MS-SSIM. Each is a frozen nn.Module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.models.distributions import to_float32
from vaezoo_discrete.quantizer import no_autocast
from vaezoo_fidelity.classifier import Classifier
from vaezoo_metrics.image_metrics import ms_ssim, ms_ssim_scales

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, with which the networks of torchvision are trained."""
_VGG = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""VGG16 up to its last convolution: channels and number of convolutions of each block."""
SMALLEST_LPIPS = 2 ** (len(_VGG) - 1)
"""The height and width that the four poolings need."""


class PerceptualDistance(nn.Module):
    """The base: [n, channels, height, width] twice, in [0, 1] -> the distance, float32 [n].

    0 where both are equal. Its weights are frozen, and it stays in evaluation mode.
    """

    def train(self, mode: bool = True) -> PerceptualDistance:
        return super().train(False)

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.train(False)


class VGG16Features(nn.Module):
    """Activations of VGG16 (Simonyan & Zisserman 2014) after the last ReLU of its five blocks.

    Names and shapes of the weights are those of torchvision's, `features.0.weight` and on.
    x: [n, 3, height, width], normalised.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, self.last = 3, list[int]()
        for width, count in _VGG:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.last.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.last:
                found.append(x)
        return found


class LPIPS(PerceptualDistance):
    """Learned perceptual image patch similarity (Zhang et al. 2018, equation 1), version 0.1, VGG.

    Features of five layers, each normalised to unit length over its channels; the squares of their
    differences, weighted by the heads, averaged over positions, and summed over layers. Images are
    normalised as those of ImageNet. Grey images are repeated to three channels.

    heads: one weight for each channel of a layer, 0 or more, [channels] each.
    Images from 16×16 pixels, with 1 or 3 channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: VGG16Features, heads: Sequence[Tensor]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        for number, head in enumerate(heads):
            self.register_buffer(f"head{number}", head.detach().clone().flatten())
        self._freeze()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self._features(a), self._features(b), strict=True)
        layers = []
        for number, (of_a, of_b) in enumerate(pairs):
            differences = (of_a - of_b).square().flatten(2).mean(2)
            layers.append((differences * self.get_buffer(f"head{number}")).sum(1))
        return torch.stack(layers).sum(0)

    def _features(self, x: Tensor) -> list[Tensor]:
        x = (x.expand(-1, 3, -1, -1) - self.mean) / self.std
        return [_unit(layer) for layer in self.network(x)]


class ClassifierDistance(PerceptualDistance):
    """The distance of LPIPS, by a classifier of the data and without heads.

    The features are those of the classifier's convolutions. The square of the distance of two unit
    vectors, from 0 to 2 here since no feature is below 0, averaged over positions and layers.
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network
        self._freeze()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self._features(a), self._features(b), strict=True)
        layers = [(of_a - of_b).square().sum(1).flatten(1).mean(1) for of_a, of_b in pairs]
        return torch.stack(layers).mean(0)

    def _features(self, x: Tensor) -> list[Tensor]:
        return [_unit(layer) for layer in self.network.layers(x)]


class MSSSIMDistance(PerceptualDistance):
    """1 - MS-SSIM (Wang et al. 2003, equation 7), with the scales that fit into the images.

    Five scales from 176 pixels, one less for each halving below, with the last weights left out
    and the others scaled to add up to 1. A similarity below 1e-4 counts as 1e-4, so that the
    gradient is finite.
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = to_float32(a), to_float32(b)
        scales = ms_ssim_scales(min(a.shape[-2:]))
        with no_autocast(a.device):
            return 1.0 - ms_ssim(a, b, scales, floor=1e-4)


def _unit(features: Tensor) -> Tensor:
    """Each position's features divided by their norm: [n, channels, height, width]."""
    return F.normalize(to_float32(features), dim=1, eps=1e-10)
