"""Perceptual distances: LPIPS, a classifier's features, MS-SSIM; where their weights come from."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import vaezoo
from small_models import images
from vaezoo import Batch, DataSpec, StepContext
from vaezoo.checkpoint.format import load_into, load_weights, save_weights
from vaezoo.errors import DataError, OptionError, RunError
from vaezoo.losses.base import loss_of
from vaezoo_fidelity.classifier import Classifier
from vaezoo_metrics.image_metrics import ms_ssim, ms_ssim_scales
from vaezoo_perceptual import weights
from vaezoo_perceptual.distances import (
    LPIPS,
    ClassifierDistance,
    MSSSIMDistance,
    PerceptualDistance,
    VGG16Features,
)

RGB = DataSpec(shape=(3, 16, 16))


def pictures(seed: int, channels: int = 3, size: int = 20) -> Tensor:
    return torch.rand(2, channels, size, size + 4, generator=torch.manual_seed(seed))


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of VGG16, in the names of torchvision."""
    torch.manual_seed(0)
    network = VGG16Features()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    path = tmp_path_factory.mktemp("vgg") / "vgg16-random.pth"
    torch.save({**network.state_dict(), "classifier.0.bias": torch.zeros(3)}, path)
    return path


@pytest.fixture(scope="module")
def lpips(vgg_file: Path) -> PerceptualDistance:
    pytest.importorskip("lpips")
    return weights.load_lpips(vgg_file).distance


def test_lpips_is_that_of_its_package(
    vgg_file: Path, lpips: PerceptualDistance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, with the same VGG16 and the package's heads."""
    package = pytest.importorskip("lpips")
    from lpips import pretrained_networks

    features = VGG16Features()
    features.load_state_dict(
        {k: v for k, v in torch.load(vgg_file, weights_only=True).items() if "features" in k}
    )

    # In place of torchvision's, whose layers for ImageNet's classes are half a gigabyte.
    monkeypatch.setattr(pretrained_networks.tv, "vgg16", lambda **_: features)
    theirs = package.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    for number, layer in enumerate(theirs.lins):
        assert layer.model[1].weight.flatten().equal(lpips.get_buffer(f"head{number}"))
    a, b = pictures(1).requires_grad_(), pictures(2)
    expected = theirs(a, b, normalize=True).flatten()
    found = lpips(a, b)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    slopes = [torch.autograd.grad(value.sum(), a)[0] for value in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-6)
    grey = pictures(3, 1)
    torch.testing.assert_close(
        lpips(grey, grey / 2), lpips(*(x.expand(-1, 3, -1, -1) for x in (grey, grey / 2)))
    )


def test_lpips_of_black_images_has_a_gradient(lpips: PerceptualDistance) -> None:
    """Where no feature is active a norm of 0 has no slope: the result is finite all the same."""
    dead = LPIPS(VGG16Features(), [torch.ones(n) for n in (64, 128, 256, 512, 512)])
    for layer in dead.network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.bias, -10.0)
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    value = dead(x, torch.zeros(1, 3, 16, 16))
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert value.item() == 0
    assert slope.isfinite().all()


def test_the_classifiers_distance_by_hand() -> None:
    torch.manual_seed(0)
    network = Classifier(1, [3])
    a, b = pictures(1, 1), pictures(2, 1)
    layers = []
    of_a, of_b = a - 0.5, b - 0.5
    for conv in network.body[:6:2]:
        of_a, of_b = (F.relu(conv(x)) for x in (of_a, of_b))
        cosine = F.cosine_similarity(of_a, of_b, dim=1)
        both = (of_a.norm(dim=1) > 0).float() + (of_b.norm(dim=1) > 0).float()
        layers.append((both - 2 * cosine).flatten(1).mean(1))
    found = ClassifierDistance(network)(a, b)
    torch.testing.assert_close(found, torch.stack(layers).mean(0))


@pytest.mark.parametrize("scales", [1, 2, 4, 5])
def test_ms_ssim_of_fewer_scales_is_that_of_a_peer(scales: int) -> None:
    peer = pytest.importorskip("pytorch_msssim")
    torch.manual_seed(0)
    a = torch.rand(2, 2, 176, 176)
    b = (a + 0.2 * torch.randn_like(a)).clamp(0, 1)
    weights = torch.tensor((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)[:scales])
    weights = (weights / weights.sum()).tolist()
    expected = peer.ms_ssim(a, b, data_range=1.0, weights=weights, size_average=False)
    torch.testing.assert_close(ms_ssim(a, b, scales), expected, rtol=1e-3, atol=1e-4)


def test_ms_ssim_has_the_scales_that_fit() -> None:
    sides = {11: 1, 21: 1, 22: 2, 43: 2, 44: 3, 87: 3, 88: 4, 175: 4, 176: 5, 512: 5}
    assert {side: ms_ssim_scales(side) for side in sides} == sides
    a, b = pictures(1, 3, 24), pictures(2, 3, 24)
    torch.testing.assert_close(MSSSIMDistance()(a, b), 1 - ms_ssim(a, b, 2, floor=1e-4))


def test_ms_ssim_of_opposites_has_a_gradient() -> None:
    a = pictures(1, 1).requires_grad_()
    value = MSSSIMDistance()(a, 1 - a.detach())
    (slope,) = torch.autograd.grad(value.sum(), a)
    assert slope.isfinite().all()


@pytest.mark.parametrize("kind", ["lpips", "classifier", "ms_ssim"])
def test_a_distance_is_zero_frozen_and_in_evaluation_mode(
    kind: str, request: pytest.FixtureRequest
) -> None:
    network: PerceptualDistance
    if kind == "lpips":
        network = request.getfixturevalue("lpips")
    else:
        network = MSSSIMDistance() if kind == "ms_ssim" else ClassifierDistance(Classifier(3, [2]))
    a, b = pictures(1), pictures(2)
    assert network(a, a).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert (network(a, b) > 0.01).all()
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(module.training for module in network.train().modules())


def test_distances_are_float32_under_autocast(lpips: PerceptualDistance) -> None:
    a, b = pictures(1), pictures(2)
    for network in (lpips, ClassifierDistance(Classifier(3, [2])), MSSSIMDistance()):
        full = network(a, b)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(a, b)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, full, rtol=0.1, atol=0.02)


class TestFiles:
    def test_weights_that_are_missing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        pytest.importorskip("lpips")
        monkeypatch.setattr(weights, "vgg_path", lambda: tmp_path / "vgg16-397923af.pth")
        model = vaezoo.create_model(
            "vanilla", (3, 16, 16), loss="perceptual_gan", discriminator_layers=1
        )
        with pytest.raises(OptionError) as caught:
            loss_of(model).phases(model)
        assert (
            "copy vgg16-397923af.pth of torchvision there, give --download-weights, or give "
            in str(caught.value)
        )
        assert "\n" not in str(caught.value)
        with pytest.raises(OptionError, match=r"x\.pth does not exist: give --perceptual ms_ssim"):
            weights.load_lpips(tmp_path / "x.pth")
        monkeypatch.setattr(weights, "heads_path", lambda: None)
        with pytest.raises(OptionError, match=r"pip install 'vaezoo.perceptual.'"):
            weights.load_lpips(tmp_path / "x.pth")

    def test_a_download_that_fails(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        pytest.importorskip("lpips")

        def fail(*args: object, **kwargs: object) -> None:
            raise OSError("no route")

        monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
        monkeypatch.setattr(weights, "vgg_path", lambda: tmp_path / "a" / "vgg16-397923af.pth")
        with pytest.raises(OptionError, match=r"could not be downloaded from https.*: no route"):
            weights.load_lpips(download=True)

    def test_files_that_are_no_vgg(self, tmp_path: Path) -> None:
        pytest.importorskip("lpips")
        (tmp_path / "a.pth").write_bytes(b"damaged")
        with pytest.raises(OptionError, match="is damaged, or is no file of weights"):
            weights.load_lpips(tmp_path / "a.pth")
        save_file({"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "b.safetensors")
        with pytest.raises(OptionError, match=r"does not hold VGG16 .* features.0.weight"):
            weights.load_lpips(tmp_path / "b.safetensors")
        with pytest.raises(RunError, match="is missing"):
            weights.load_distance("classifier", RGB, tmp_path / "none.safetensors")

    def test_other_weights_have_another_name(self, vgg_file: Path) -> None:
        pytest.importorskip("lpips")
        found = weights.load_lpips(vgg_file)
        assert found.name == f"lpips_of_unknown_weights_{found.digest.hex()[:8]}"

    def test_the_published_weights_have_the_plain_name(
        self, vgg_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The heads of the package are the published ones; VGG16 is told by its checksum."""
        pytest.importorskip("lpips")
        digest = weights.load_lpips(vgg_file).digest.hex()
        monkeypatch.setattr(weights, "_VGG_SHA256", digest[:8])
        assert weights.load_lpips(vgg_file).name == "lpips"

    @pytest.mark.parametrize(
        ("perceptual", "data", "said"),
        [
            ("lpips", DataSpec(shape=(2, 16, 16)), "images of 1 or 3 channels, not 2"),
            ("lpips", DataSpec(shape=(3, 32, 15)), "images of 16 pixels or more, not 15"),
            ("ms_ssim", DataSpec(shape=(3, 32, 10)), "images of 11 pixels or more, not 10"),
            ("ms_ssim", DataSpec(shape=(3, 32, 32), domain="real"), "values in .0, 1., and this"),
        ],
    )
    def test_data_that_does_not_fit(self, perceptual: str, data: DataSpec, said: str) -> None:
        with pytest.raises(DataError, match=f"{said}.*: give --perceptual none"):
            weights.check_data(perceptual, data)  # type: ignore[arg-type]


class TestInTheLoss:
    def file(self, folder: Path, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        path = folder / f"classifier{seed}.safetensors"
        save_weights(path, {**Classifier(1, [3, 2]).state_dict(), "accuracy": torch.tensor(0.5)})
        return path

    def build(self, file: Path) -> vaezoo.BaseVAE:
        torch.manual_seed(0)
        return vaezoo.create_model(
            "vanilla",
            (1, 8, 8),
            network="mlp",
            loss="perceptual_gan",
            perceptual="classifier",
            perceptual_file=file,
            perceptual_weight=0.5,
            adversarial_weight=0,
        )

    def test_the_term_by_hand_and_its_name(self, tmp_path: Path) -> None:
        model, x = self.build(self.file(tmp_path)), images().float()
        loss = loss_of(model)
        torch.manual_seed(1)
        found = loss(model, Batch(x), StepContext(torch.tensor(0), 10, 100))
        torch.manual_seed(1)
        reconstruction = model(x).likelihood.mean
        torch.manual_seed(0)
        distance = ClassifierDistance(Classifier(1, [3, 2]))
        expected = distance(reconstruction, x)
        torch.testing.assert_close(found.terms["perceptual_classifier"], expected)
        terms = found.terms
        whole = terms["l1"] + 1e-6 * terms["rate"] + 64 * 0.5 * expected
        torch.testing.assert_close(found.loss, whole.mean())

    def test_the_network_is_no_part_of_model_and_loss(self, tmp_path: Path) -> None:
        model = self.build(self.file(tmp_path))
        loss = loss_of(model)
        loss.phases(model)
        loss(model, Batch(images().float()), StepContext(torch.tensor(0), 10, 100))
        assert not list(loss.parameters())
        assert [*loss.state_dict()] == ["perceptual_sha256"]
        assert not any(isinstance(m, Classifier) for m in (*loss.modules(), *model.modules()))
        # It follows the images to another precision.
        model.double()
        out = loss(model, Batch(images()), StepContext(torch.tensor(0), 10, 100))
        assert out.terms["perceptual_classifier"].dtype == torch.float64

    def test_other_weights_are_refused_when_a_training_resumes(self, tmp_path: Path) -> None:
        """Whether they are read before the state of the loss is loaded, or after."""
        first = self.build(self.file(tmp_path))
        loss_of(first).phases(first)
        path = tmp_path / "loss.safetensors"
        save_weights(path, loss_of(first).state_dict())
        for early in (True, False):
            same, other = self.build(self.file(tmp_path)), self.build(self.file(tmp_path, 1))
            if early:
                for model in (same, other):
                    loss_of(model).phases(model)
            load_into(loss_of(same), load_weights(path), path)
            loss_of(same).phases(same)
            found = pytest.raises(OptionError, match="not those that this training began with")
            with found if early else nullcontext():
                load_into(loss_of(other), load_weights(path), path)
            if not early:
                with found:
                    loss_of(other).phases(other)

    def test_a_finished_run_opens_without_the_weights(self, tmp_path: Path) -> None:
        small = {"data": "sprites", "examples": 40, "test": 10, "image_size": 16, "hidden": (4, 4)}
        file = self.file(tmp_path)
        run = vaezoo.train(
            "vanilla",
            **small,
            batch_size=6,
            steps=2,
            device="cpu",
            out=tmp_path / "r",
            loss="perceptual_gan",
            perceptual="classifier",
            perceptual_file=file,
            discriminator_layers=1,
            discriminator_channels=4,
        )
        file.unlink()
        assert vaezoo.load_run(run.path).sample(2).shape == (2, 1, 16, 16)
        line = (run.path / "metrics.jsonl").read_text().splitlines()[0]
        assert "perceptual_classifier" in line
        model = vaezoo.load_run(run.path).model
        with pytest.raises(RunError, match=r"classifier0\.safetensors is missing"):
            loss_of(model).phases(model)
