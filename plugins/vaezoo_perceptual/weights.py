"""Perceptual networks with their weights, read from files without running code in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaezoo import DataSpec
from vaezoo.checkpoint.format import file_digest, load_weights
from vaezoo.errors import DataError, OptionError
from vaezoo_fidelity.classifier import read_classifier
from vaezoo_metrics.image_metrics import SSIM_SMALLEST

from .distances import (
    LPIPS,
    SMALLEST_LPIPS,
    ClassifierDistance,
    MSSSIMDistance,
    PerceptualDistance,
    VGG16Features,
)
from .options import Perceptual

_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
_VGG_SHA256 = "397923af"
"""The first digits of the checksum of that file, as its name has them."""
_HEADS_SHA256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
"""Of the file v0.1/vgg.pth of the package lpips 0.1.4."""


class MissingWeightsError(OptionError):
    """LPIPS cannot be built. problem: what it needs. advice: what comes before the alternatives."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(
            f"--perceptual lpips needs {problem}: {advice}--perceptual ms_ssim, classifier or none"
        )
        self.problem = problem


@dataclass(frozen=True)
class LoadedDistance:
    """A distance, its name for records, and the sha256 of its weights; b"" if it has none."""

    distance: PerceptualDistance
    name: str
    digest: bytes

    def place(self, like: Tensor) -> None:
        """Move the network to the device and the precision of images."""
        held = next((t for t in (*self.distance.parameters(), *self.distance.buffers())), like)
        if (held.device, held.dtype) != (like.device, like.dtype):
            self.distance.to(like.device, like.dtype)
            self.distance.to(memory_format=torch.channels_last)


def check_data(perceptual: Perceptual, data: DataSpec, downscale: int = 1) -> None:
    """DataError, in one line, unless this distance can compare these images."""
    if perceptual == "none":
        return
    side = min(data.height, data.width) // downscale
    smallest = {"lpips": SMALLEST_LPIPS, "ms_ssim": SSIM_SMALLEST, "classifier": 1}[perceptual]
    problem = ""
    if not data.is_bounded:
        problem = f"values in [0, 1], and this data is {data.domain}"
    elif perceptual == "lpips" and data.channels not in (1, 3):
        problem = f"images of 1 or 3 channels, not {data.channels}"
    elif side < smallest:
        problem = f"images of {smallest} pixels or more, not {side}"
    if problem:
        raise DataError(f"--perceptual {perceptual} compares {problem}: give --perceptual none")


def load_distance(
    perceptual: Perceptual, data: DataSpec, file: Path | None = None, download: bool = False
) -> LoadedDistance:
    """The distance of this name; OptionError, in one line, if its weights are missing or wrong.

    file, download: as the options perceptual_file and download_weights.
    """
    if perceptual == "lpips":
        return load_lpips(file, download)
    if perceptual == "classifier":
        assert file is not None
        network = read_classifier(file, data.channels)
        return LoadedDistance(
            ClassifierDistance(network), "classifier", bytes.fromhex(file_digest(file))
        )
    return LoadedDistance(MSSSIMDistance(), "ms_ssim", b"")


def vgg_path() -> Path:
    """Where torch.hub keeps the weights of VGG16. The file may not exist."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _URL.rpartition("/")[2]


def heads_path() -> Path | None:
    """The heads of LPIPS in the installed package lpips; None if it is not installed."""
    found = find_spec("lpips")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "weights" / "v0.1" / "vgg.pth"


def load_lpips(file: Path | None = None, download: bool = False) -> LoadedDistance:
    """LPIPS. Its name is `lpips` with the published weights alone; others are in its name."""
    heads = heads_path()
    if heads is None or not heads.is_file():
        raise MissingWeightsError(
            "the heads of the package lpips (pip install 'vaezoo[perceptual]')", "give "
        )
    path = _find_vgg(file, download)
    network = VGG16Features()
    own, found = network.state_dict(), _read(path)
    wrong = [n for n, tensor in own.items() if getattr(found.get(n), "shape", 0) != tensor.shape]
    if wrong:
        raise OptionError(
            f"{path} does not hold VGG16 as torchvision has it: {wrong[0]} is missing"
        )
    network.load_state_dict({name: found[name] for name in own})
    weights = [tensor for name, tensor in sorted(_read(heads).items())]
    digest = file_digest(path)
    published = digest.startswith(_VGG_SHA256) and file_digest(heads) == _HEADS_SHA256
    name = "lpips" if published else f"lpips_of_unknown_weights_{digest[:8]}"
    return LoadedDistance(LPIPS(network, weights), name, bytes.fromhex(digest))


def _find_vgg(file: Path | None, download: bool) -> Path:
    path = vgg_path() if file is None else file
    if path.is_file():
        return path
    if file is None and download:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_URL, str(path), _VGG_SHA256, progress=False)
        except (OSError, RuntimeError) as error:
            raise OptionError(f"VGG16 could not be downloaded from {_URL}: {error}") from None
        return path
    advice = "" if file else f"copy {path.name} of torchvision there, give --download-weights, or "
    problem = f"the weights of VGG16, and {path} does not exist"
    raise MissingWeightsError(problem, f"{advice}give ")


def _read(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a .pth or .safetensors file. OptionError if it is damaged."""
    if path.suffix == ".safetensors":
        return load_weights(path)
    try:
        found: Any = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # torch raises different errors for different damages
        raise OptionError(f"{path} is damaged, or is no file of weights") from None
    return {k: v for k, v in found.items() if isinstance(v, Tensor)} if found else {}
