"""Measures of images against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vaezoo_metrics import image_metrics
from vaezoo_metrics.image_metrics import gaussian_window, ms_ssim, mse, psnr, ssim


def literal_ssim(a: Tensor, b: Tensor) -> float:
    """Wang et al. 2004, equation 13, window by window, of one channel: [height, width] each."""
    side = torch.tensor([math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]).double()
    weights = side[:, None] * side / side.sum() ** 2
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            var_p = (weights * (p - mean_p) ** 2).sum()
            var_q = (weights * (q - mean_q) ** 2).sum()
            both = (weights * (p - mean_p) * (q - mean_q)).sum()
            values.append(
                (2 * mean_p * mean_q + 0.01**2)
                * (2 * both + 0.03**2)
                / ((mean_p**2 + mean_q**2 + 0.01**2) * (var_p + var_q + 0.03**2))
            )
    return float(torch.stack(values).mean())


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_ssim_is_its_definition() -> None:
    a = images(2, 3, 14, 16)
    b = (a + 0.2 * images(2, 3, 14, 16).flip(0)).clamp(0, 1)
    by_hand = [sum(literal_ssim(a[n, c], b[n, c]) for c in range(3)) / 3 for n in range(2)]
    assert ssim(a, b).tolist() == pytest.approx(by_hand, rel=1e-9)


@given(height=st.integers(1, 20), width=st.integers(1, 20))
def test_ssim_of_equal_images_is_one_and_of_no_others(height: int, width: int) -> None:
    a = images(2, 1, height, width)
    assert ssim(a, a).tolist() == pytest.approx([1.0, 1.0])
    assert (ssim(a, 1 - a) < 1).all()
    assert torch.equal(ssim(a, 1 - a), ssim(1 - a, a))


def test_the_window_is_a_gaussian() -> None:
    """A peer's was upside down: the edge weighed most."""
    window = gaussian_window(11, torch.zeros(1, dtype=torch.float64))
    assert window.sum().item() == pytest.approx(1.0)
    assert window.argmax() == 5
    assert (window[5] / window[4]).item() == pytest.approx(math.exp(1 / (2 * 1.5**2)))
    assert torch.equal(window, window.flip(0))


def test_mse_and_psnr_by_hand() -> None:
    a = torch.zeros(2, 1, 2, 2)
    b = torch.stack([torch.full((1, 2, 2), 0.1), torch.eye(2)[None]])
    assert mse(a, b).tolist() == pytest.approx([0.01, 0.5])
    assert psnr(a, b).tolist() == pytest.approx([20.0, -10 * math.log10(0.5)])


class TestMultiScale:
    def images(self, channels: int = 1, size: int = 176) -> tuple[Tensor, Tensor]:
        """Smooth pictures, and the same with noise: every scale is away from 0 and from 1."""
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(2, channels, 12, 12, generator=generator)
        a = torch.nn.functional.interpolate(coarse, size=(size, size + 7), mode="bilinear")
        return a, (a + 0.1 * torch.randn(a.shape, generator=generator)).clamp(0, 1)

    def test_of_an_image_with_itself_it_is_one(self) -> None:
        a, _ = self.images()
        assert torch.allclose(ms_ssim(a, a), torch.ones(2), atol=1e-5)

    def test_noise_costs_less_at_coarse_scales(self) -> None:
        """Averaged away by halving: what a coarse look cannot see counts less than it does."""
        a, b = self.images()
        one, many = ssim(a, b), ms_ssim(a, b)
        assert (one < many).all()
        assert (many < 1).all()

    def test_by_hand_from_its_parts(self) -> None:
        """The contrast and structure of each scale to its weight; luminance at the coarsest."""
        a, b = self.images()
        expected = torch.ones(2)
        weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
        assert sum(weights) == pytest.approx(1, abs=1e-3)
        for number, weight in enumerate(weights):
            luminance, structure = image_metrics._maps(a, b)
            part = structure if number < 4 else luminance * structure
            expected = expected * part.mean((1, 2, 3)) ** weight
            a, b = (torch.nn.functional.avg_pool2d(x, 2) for x in (a, b))
        a, b = self.images()
        assert torch.allclose(ms_ssim(a, b), expected, atol=1e-5)

    def test_the_smallest_that_it_takes(self) -> None:
        assert image_metrics.MS_SSIM_SMALLEST == 176
        a, b = self.images(size=176)
        assert torch.isfinite(ms_ssim(a, b)).all()

    def test_opposite_images_are_no_error(self) -> None:
        a, _ = self.images()
        assert torch.isfinite(ms_ssim(a, 1 - a)).all()
        assert (ms_ssim(a, 1 - a) < 0.2).all()

    def test_against_torchmetrics(self) -> None:
        """Theirs pads by reflection, and cuts that off again; both see the same windows."""
        image = pytest.importorskip("torchmetrics.functional.image")
        a, b = self.images()
        theirs = image.multiscale_structural_similarity_index_measure(
            a, b, data_range=1.0, normalize="relu", sigma=1.5, kernel_size=11, reduction="none"
        )
        assert torch.allclose(ms_ssim(a, b), theirs.flatten(), atol=2e-3)

    def test_ssim_against_skimage(self) -> None:
        metrics = pytest.importorskip("skimage.metrics")
        a, b = self.images(size=40)
        _, full = metrics.structural_similarity(
            a[0, 0].double().numpy(),
            b[0, 0].double().numpy(),
            data_range=1.0,
            gaussian_weights=True,
            use_sample_covariance=False,
            win_size=11,
            full=True,
        )
        assert float(ssim(a, b)[0]) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-5)
