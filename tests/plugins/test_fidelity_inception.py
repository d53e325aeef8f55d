"""The Inception path with weights on disk: the number is torchmetrics', the name is honest.

The published weights are 95 MB and are not fetched by tests: a network of the same architecture
with random weights goes the same way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vaezoo
from vaezoo.checkpoint.format import file_digest
from vaezoo.cli.main import main
from vaezoo.data.loader import BatchLoader
from vaezoo.runtime.device import seeded
from vaezoo_fidelity import inception
from vaezoo_fidelity import metrics as samples

FEW = 12
CPU = torch.device("cpu")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights that keep the size of what goes through, where those of 2015 would lie."""
    module: Any = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    kind = module.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch, seeded(0, CPU):
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **options: None)
        patch.setattr(kind, "load_state_dict", lambda self, weights: None)
        network = kind("inception-v3-compat", ["2048"])
        for part in network.modules():
            if isinstance(part, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(part.weight)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = inception.weights_path()
    path.parent.mkdir()
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.slow
def test_fid_by_inception_is_that_of_torchmetrics(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fid: Any = pytest.importorskip("torchmetrics.image.fid")
    monkeypatch.setattr(samples, "MIN_EXAMPLES", FEW)
    run = vaezoo.train(
        "vanilla", data="sprites", out=tmp_path / "run", examples=60, test=FEW, image_size=16,
        hidden=(8, 8), latent_dim=3, steps=4, batch_size=16, device="cpu",
    )  # fmt: skip
    capsys.readouterr()
    words = ["evaluate", str(run.path), "--metric", "fid,recall", "--features", "inception"]
    assert main([*words, "--json"]) == 0
    number = json.loads(capsys.readouterr().out)["metrics"]["fid"]
    checksum = file_digest(weights)[:8]
    assert number["label"] == f"fid[inception-of-unknown-weights-{checksum}]"
    assert "are not those of 2015" in number["note"]

    # Once more, by torchmetrics alone: the real images, and the draws that vaezoo made.
    real = BatchLoader(run.splits.test, batch_size=FEW, device=CPU).batch(torch.arange(FEW)).x
    model = run.model  # building one draws its first weights
    with seeded(samples._NOISE + 1, CPU), torch.no_grad():
        drawn = model.sample(FEW, None, mean=False).float()
    # antialias: resized as torch-fidelity and the literature do it, which is not their default.
    theirs = fid.FrechetInceptionDistance(
        2048, feature_extractor_weights_path=str(weights), antialias=False
    )
    for images, is_real in ((real, True), (drawn, False)):
        levels = (images.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
        theirs.update(levels, real=is_real)
    assert number["value"] == pytest.approx(float(theirs.compute()), rel=1e-3)
    assert number["value"] > 1e-3


@pytest.mark.slow
def test_the_weights_of_2015_alone_are_inception(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto takes no others; with theirs the number has the name of the literature."""
    assert not inception.is_available(download=True)
    monkeypatch.setattr(inception, "_SHA256", file_digest(weights))
    assert inception.is_available(download=False)
    assert inception.load(CPU)[1:] == ("inception", "")


@pytest.mark.parametrize("channels", [1, 3])
def test_it_sees_8_bit_levels_of_three_channels(channels: int) -> None:
    network = inception.Inception.__new__(inception.Inception)
    torch.nn.Module.__init__(network)
    network.network = lambda levels: [levels]
    x = torch.rand(2, channels, 5, 7) * 3 - 1
    seen = network(x)
    assert seen.dtype == torch.uint8
    assert torch.equal(seen, (x.clamp(0, 1) * 255).round().byte().expand(2, 3, 5, 7))


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("known", [True, False, None])
def test_it_is_available_with_its_library_and_its_weights_or_leave_to_download_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool | None, installed: bool
) -> None:
    """known: whether the weights are those of 2015; None where there are none."""
    path = tmp_path / "weights"
    if known is not None:
        path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights" if known else b"others").hexdigest()
    monkeypatch.setattr(inception, "_SHA256", digest)
    monkeypatch.setattr(inception, "weights_path", lambda: path)
    monkeypatch.setattr(inception, "find_spec", lambda name: object() if installed else None)
    found = [inception.is_available(download) for download in (False, True)]
    if known is None:
        assert found == [False, installed]
    else:
        assert found == [known and installed] * 2


def test_what_is_no_weights_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_fidelity")
    path = tmp_path / "w.pth"
    monkeypatch.setattr(inception, "weights_path", lambda: path)
    wrong: dict[str, Callable[[], None]] = {
        "text": lambda: path.write_text("half of it") and None,
        "others": lambda: torch.save({"a": torch.zeros(1)}, path),
        "code": lambda: torch.save(Path, path),
    }
    for write in wrong.values():
        write()
        assert not inception.is_available(download=False)
        with pytest.raises(inception.MetricUnavailable, match="is damaged: delete it"):
            inception.load(CPU)
