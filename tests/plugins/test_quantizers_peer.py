"""Our quantizers beside those of vector-quantize-pytorch, with the same weights and features.

docs/quantizers.md explains each difference that a test here has to take into account.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaezoo_discrete.fsq import ScalarQuantizer
from vaezoo_discrete.vq import VectorQuantizer
from vaezoo_quantizers.binary import BinaryQuantizer
from vaezoo_quantizers.product import ProductQuantizer
from vaezoo_quantizers.residual import ResidualQuantizer
from vaezoo_quantizers.scales import MultiScaleQuantizer
from vaezoo_quantizers.simvq import LinearCodebookQuantizer

peer: Any = pytest.importorskip("vector_quantize_pytorch")

CODES, WIDTH = 12, 6


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def features(width: int = WIDTH, n: int = 3) -> Tensor:
    return torch.randn(n, width, 4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()


def gradient(quantized: Tensor, x: Tensor) -> Tensor:
    """Of a fixed random weighting of the quantized features."""
    weight = torch.randn(quantized.shape, generator=torch.Generator().manual_seed(2))
    (found,) = torch.autograd.grad((weight * quantized).sum(), x, retain_graph=True)
    return found


def near(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def their_vq(width: int = WIDTH, **options: Any) -> Any:
    settings = {"rotation_trick": False, "eps": 1e-9, "decay": 0.8} | options
    return peer.VectorQuantize(width, CODES, accept_image_fmap=True, **settings)


def our_vq(theirs: Any, **options: Any) -> VectorQuantizer:
    """With the codebook of theirs, which it shares with its first head."""
    made = VectorQuantizer(CODES, WIDTH, decay=0.8, dead_code_steps=None, **options)
    copy(made, theirs._codebook.embed[0])
    return made


def copy(ours: VectorQuantizer, codebook: Tensor) -> None:
    with torch.no_grad():
        ours.codebook.copy_(codebook)
        if ours.ema:
            ours.sums.copy_(codebook)


class TestVQ:
    @pytest.mark.parametrize("cosine", [False, True])
    @pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
    def test_outputs_gradients_and_moving_averages(self, estimator: str, cosine: bool) -> None:
        theirs = their_vq(rotation_trick=estimator == "rotation", use_cosine_sim=cosine)
        ours, x = our_vq(theirs, estimator=estimator, cosine=cosine), features()
        for _ in range(3):
            quantized, indices, loss = theirs(x)
            output = ours(x)
            near(output.quantized, quantized)
            assert output.indices.equal(indices)
            near(output.losses["commitment"].sum() / x.numel(), loss)
            near(gradient(output.quantized, x), gradient(quantized, x))
            near(gradient(output.losses["commitment"].sum() / x.numel(), x), gradient(loss, x))
            near(ours.codebook, theirs._codebook.embed[0])
            near(ours.counts, theirs._codebook.cluster_size[0])

    def test_a_codebook_trained_by_gradient(self) -> None:
        """Their commitment trains the codebook too: the sum of our two terms, each of weight 1."""
        theirs = their_vq(learnable_codebook=True, ema_update=False)
        ours, x = our_vq(theirs, ema=False), features()
        quantized, _, loss = theirs(x)
        output = ours(x)
        near(output.quantized, quantized)
        (sum(output.losses.values()).sum() / x.numel()).backward()
        ours_of_x, x.grad = x.grad, None
        loss.backward()
        assert ours_of_x is not None
        assert x.grad is not None
        near(ours_of_x, x.grad)
        near(ours.codebook.grad, theirs._codebook.embed.grad[0])

    @pytest.mark.parametrize("cosine", [False, True])
    def test_kmeans_from_the_same_start(
        self, cosine: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours = VectorQuantizer(CODES, WIDTH, kmeans_steps=7, cosine=cosine, ndim=2)
        vectors = ours.to_vectors(ours.prepare(features().detach()))
        start = vectors[:CODES]
        monkeypatch.setattr(ours, "_random_vectors", lambda vectors, distinct: start)
        ours._start(vectors)
        means, _ = peer.vector_quantize_pytorch.kmeans(
            vectors[None], CODES, 7, cosine, sample_fn=lambda samples, count: start[None]
        )
        near(ours.codebook, means[0])


class TestSeveralCodebooks:
    def pair(self, **options: Any) -> tuple[ResidualQuantizer, Any]:
        theirs = peer.ResidualVQ(
            dim=WIDTH,
            num_quantizers=3,
            codebook_size=CODES,
            eps=1e-9,
            decay=0.8,
            **options,
        )
        levels = [our_vq(layer) for layer in theirs.layers]
        return ResidualQuantizer(levels), theirs

    def test_residual(self) -> None:
        ours, theirs = self.pair(rotation_trick=False)
        x = features()
        for _ in range(2):
            # Version 1.32 takes no images here: a sequence of vectors.
            quantized, indices, losses = theirs(x.flatten(2).mT)
            quantized, indices = quantized.mT.unflatten(2, (4, 5)), indices.unflatten(1, (4, 5))
            output = ours(x)
            near(output.quantized, quantized)
            assert output.indices.movedim(1, -1).equal(indices)
            near(output.losses["commitment"].sum() / x.numel(), losses.sum())
            near(
                gradient(output.losses["commitment"].sum(), x) / x.numel(),
                gradient(losses.sum(), x),
            )
            for level, layer in zip(ours.levels, theirs.layers, strict=True):
                near(level.codebook, layer._codebook.embed[0])
        # Each of their levels passes the gradient straight through, so theirs counts it 3 times.
        near(3 * gradient(output.quantized, x), gradient(quantized, x))

    def test_residual_codes_of_indices(self) -> None:
        ours, theirs = self.pair()
        x = features().detach()
        indices = ours.eval()(x).indices
        codes = theirs.get_output_from_indices(indices.movedim(1, -1))
        near(ours.codes_to_features(ours.indices_to_codes(indices)).movedim(1, -1), codes)

    def test_product(self) -> None:
        theirs = their_vq(2 * WIDTH, heads=2, codebook_dim=WIDTH, separate_codebook_per_head=True)
        parts = [VectorQuantizer(CODES, WIDTH, decay=0.8, dead_code_steps=None) for _ in range(2)]
        for part, codebook in zip(parts, theirs._codebook.embed, strict=True):
            copy(part, codebook)
        ours, x = ProductQuantizer(parts), features(2 * WIDTH)
        for _ in range(2):
            quantized, indices, loss = theirs(x)
            output = ours(x)
            near(output.quantized, quantized)
            assert output.indices.movedim(1, -1).equal(indices)
            near(output.losses["commitment"].sum() / x.numel(), loss)
            near(gradient(output.quantized, x), gradient(quantized, x))
        near(parts[1].codebook, theirs._codebook.embed[1])


class TestBinary:
    @pytest.mark.parametrize("spherical", [False, True])
    @pytest.mark.parametrize("codebooks", [1, 2])
    def test_lookup_free(self, spherical: bool, codebooks: int) -> None:
        if spherical and codebooks == 2:
            pytest.skip("theirs scales each codebook's bits to a unit vector, ours all of them")
        bits, temperature = 4, 2.0
        theirs = peer.LFQ(
            codebook_size=2**bits,
            dim=bits * codebooks,
            num_codebooks=codebooks,
            spherical=spherical,
            commitment_loss_weight=1.0,
        )
        ours = BinaryQuantizer(bits, codebooks, spherical=spherical, temperature=temperature)
        x = features(bits * codebooks)
        (quantized, indices, _), parts = theirs(
            x, inv_temperature=1 / temperature, return_loss_breakdown=True
        )
        output = ours(x)
        near(output.quantized, quantized)
        reversed_bits = [int(f"{i:04b}"[::-1], 2) for i in range(2**bits)]
        expected = torch.tensor(reversed_bits)[indices.long()]
        assert output.indices.equal(expected.movedim(-1, 1) if codebooks == 2 else expected)
        near(gradient(output.quantized, x), gradient(quantized, x))
        losses, positions = output.losses, 3 * 20
        # Theirs are means over codebooks too, and take no logarithm of less than 1e-5.
        of_each = losses["entropy"].sum() / positions / codebooks
        of_batch = losses["batch_entropy"] / 20 / codebooks
        near(of_each, parts.per_sample_entropy, 1e-3)
        near(of_batch, parts.batch_entropy, 1e-3)
        near(gradient(of_each, x), gradient(parts.per_sample_entropy, x), 1e-3)
        near(gradient(of_batch, x), gradient(parts.batch_entropy, x), 1e-4)
        near(losses["commitment"].sum() / x.numel(), parts.commitment)

    @pytest.mark.parametrize("levels", [(8, 5, 5), (4, 3)])
    def test_finite_scalar(self, levels: tuple[int, ...]) -> None:
        theirs, ours, x = peer.FSQ(list(levels)), ScalarQuantizer(levels), features(len(levels))
        quantized, indices = theirs(x)
        output = ours(x)
        near(output.quantized, quantized)
        assert output.indices.equal(indices.long())
        near(gradient(output.quantized, x), gradient(quantized, x))


def test_two_scales() -> None:
    """Theirs interpolates linearly, which is the same from one position; without convolutions."""
    theirs = peer.HierarchicalVQ(
        dim=WIDTH,
        codebook_size=CODES,
        scales=[(1, 1), (4, 5)],
        quant_resi=0.0,
        kmeans_init=False,
        accept_image_fmap=True,
    ).eval()
    codes = VectorQuantizer(CODES, WIDTH, ndim=1)
    copy(codes, theirs.vq._codebook.embed[0])
    ours, x = MultiScaleQuantizer(codes, [(1, 1), (4, 5)], convolutions=0).eval(), features()
    quantized, indices, _ = theirs(x)
    output = ours(x)
    near(output.quantized, quantized)
    assert output.indices.equal(torch.cat([found.flatten(1) for found in indices], 1))


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_simvq(estimator: str) -> None:
    theirs = peer.SimVQ(WIDTH, CODES, channel_first=True, rotation_trick=estimator == "rotation")
    ours, x = LinearCodebookQuantizer(CODES, WIDTH, estimator=estimator), features()  # type: ignore[arg-type]
    ours.frozen.copy_(theirs.frozen_codebook)
    assert isinstance(theirs.code_transform, nn.Linear)
    ours.map.load_state_dict(theirs.code_transform.state_dict())
    quantized, indices, loss = theirs(x)
    output = ours(x)
    near(output.quantized, quantized)
    assert output.indices.equal(indices)
    near(gradient(output.quantized, x), gradient(quantized, x))
    total = (output.losses["codebook"] + 0.25 * output.losses["commitment"]).sum() / x.numel()
    near(total, loss)
    near(gradient(total, x), gradient(loss, x))
    each = [
        torch.autograd.grad(value, layer.weight)[0]
        for value, layer in ((total, ours.map), (loss, theirs.code_transform))
    ]
    near(*each)
