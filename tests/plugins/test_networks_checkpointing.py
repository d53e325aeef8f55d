"""Activation checkpointing changes no number, and keeps fewer values for the backward pass."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vaezoo
from vaezoo.models.base import BaseVAE

SMALL: dict[str, dict[str, Any]] = {
    "autoencoder_kl": {"hidden": (8, 8), "layers_per_block": 2, "norm_groups": 4},
    "vit_vae": {"embed_dim": 16, "depth": 3, "num_heads": 2},
    "titok": {"embed_dim": 16, "depth": 3, "num_heads": 2, "latent_tokens": 4, "codes": 8},
    "dc_ae": {"hidden": (8, 8), "head_dim": 4},
}


def make(name: str, *, checkpointing: bool, **options: Any) -> BaseVAE:
    torch.manual_seed(0)
    options = {**SMALL[name], **options, "activation_checkpointing": checkpointing}
    return vaezoo.create_model(name, (1, 16, 16), **options)


def backward(model: BaseVAE, x: Tensor) -> tuple[Tensor, list[Tensor], int]:
    """The output's mean, all gradients, and how many values were saved for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mean = model(x).likelihood.mean
        forward_only = sum(saved.values())
    mean.square().sum().backward()
    return mean, [p.grad for p in parameters if p.grad is not None], forward_only


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_equal_and_less_is_saved(name: str) -> None:
    x = torch.rand(4, 1, 16, 16)
    plain, ours = make(name, checkpointing=False), make(name, checkpointing=True)
    assert list(plain.state_dict()) == list(ours.state_dict())
    expected, found = backward(plain, x), backward(ours, x)
    torch.testing.assert_close(found[0], expected[0])
    assert len(found[1]) == len(expected[1]) > 10
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other)
    assert found[2] < 0.6 * expected[2]


def test_a_copy_computes_with_its_own_weights() -> None:
    model = make("vit_vae", checkpointing=True)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.encoder.parameters():
            parameter.zero_()
    x = torch.rand(2, 1, 16, 16)
    assert not other.encoder(x).any()
    assert model.encoder(x).any()


def test_evaluation_is_not_checkpointed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("it was checkpointed")

    model = make("autoencoder_kl", checkpointing=True)
    monkeypatch.setattr("vaezoo_networks.checkpointing.checkpoint", fail)
    x = torch.rand(2, 1, 16, 16)
    model.eval()(x)
    with torch.no_grad():
        model.train()(x)
    with pytest.raises(AssertionError, match="checkpointed"):
        model(x)


def test_batch_norm_updates_its_statistics_once() -> None:
    means = []
    for checkpointing in (False, True):
        options = {"batch_norm_levels": (0,)}
        model = make("dc_ae", checkpointing=checkpointing, **options).train()
        model(torch.rand(4, 1, 16, 16)).likelihood.mean.sum().backward()
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        means.append(norms[0].running_mean)
        assert [int(n.num_batches_tracked) for n in norms if n.num_batches_tracked is not None] == [
            1
        ] * len(norms)
    torch.testing.assert_close(*means)
