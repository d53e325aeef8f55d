"""The Inception network of published FIDs: torch-fidelity's, with the weights of 2015."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from vaezoo.checkpoint.format import file_digest
from vaezoo.evaluation.metric import MetricUnavailable
from vaezoo.runtime.device import move_module

_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)


_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of that file. With other weights the numbers do not compare with published ones."""


def weights_path() -> Path:
    """The path of the weights in the cache of torch-fidelity. The file may not exist."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _URL.rpartition("/")[2]


def is_available(download: bool) -> bool:
    """Whether the network is installed, and the weights of 2015 exist or may be downloaded."""
    path = weights_path()
    known = file_digest(path) == _SHA256 if path.is_file() else download
    return known and find_spec("torch_fidelity") is not None


def load(device: torch.device) -> tuple[Inception, str, str]:
    """The network, its name, and a note; its weights are downloaded if they do not exist.

    It is `inception` with the weights of 2015 alone; others are in its name. MetricUnavailable
    when there are none, or none that fit.
    """
    if find_spec("torch_fidelity") is None:
        raise MetricUnavailable("it needs torch-fidelity: pip install 'vaezoo[metrics]'")
    path = weights_path()
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_URL, str(path), progress=False)
        except OSError as error:
            raise MetricUnavailable(
                f"the weights of Inception could not be downloaded: {error}"
            ) from None
    found = file_digest(path)
    try:
        network = move_module(Inception(path), device).eval()
    except Exception:  # torch raises different errors for different damages
        raise MetricUnavailable(f"{path} is damaged: delete it, and give --download") from None
    if found == _SHA256:
        return network, "inception", ""
    return (
        network,
        f"inception-of-unknown-weights-{found[:8]}",
        f"the weights in {path.name} are not those of 2015: this compares with no published number",
    )


class Inception(nn.Module):
    """Images to 2048 features of the last pooling. x: [n, 1 or 3, height, width] in [0, 1]."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # Read without pickle, and passed on in a new file: the library would run code in the file.
        weights = torch.load(path, weights_only=True, map_location="cpu")
        with tempfile.TemporaryDirectory() as folder:
            own = Path(folder) / path.name
            torch.save(weights, own)
            self.network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(own)
            )

    def forward(self, x: Tensor) -> Tensor:
        levels = (x.clamp(0, 1) * 255).round().to(torch.uint8)
        features: Tensor = self.network(levels.expand(-1, 3, -1, -1))[0]
        return features
