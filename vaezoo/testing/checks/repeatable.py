"""Checks of repeatability: by seed, for any batch, after loading, and no effects of evaluation."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from vaezoo.checkpoint.format import load_into, load_weights, save_weights
from vaezoo.losses.base import loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import seeded
from vaezoo.testing.check import check, fail_if
from vaezoo.testing.subjects import CPU, ModelWithLoss, set_training


@check("draw all random numbers from torch's generator")
def seeds(pair: ModelWithLoss) -> None:
    """The same seed gives the same weights, steps and samples; another seed gives others"""
    first, second = pair.build(seed=0), pair.build(seed=0)
    for name, tensor in first.state_dict().items():
        same = tensor.equal(second.state_dict()[name])
        fail_if(not same, f"{name} has other initial values with the same seed")
    batch = pair.batch()
    steps = [torch.stack([*pair.train(model, batch, 2)]) for model in (first, second)]
    fail_if(not steps[0].equal(steps[1]), "training steps differ with the same seed")
    y = None if batch.y is None else batch.y[:3]
    samples = []
    for model, seed in ((first, 0), (second, 0), (second, 1)):
        with seeded(seed, CPU):
            samples.append(model.eval().sample(3, y))
    fail_if(not samples[0].equal(samples[1]), "samples differ with the same seed")
    fail_if(samples[1].equal(samples[2]), "samples do not depend on the seed")


@check("use statistics of the batch in training mode only")
def independence(pair: ModelWithLoss) -> None:
    """In evaluation, results of an example do not depend on the rest of the batch"""
    with pair.in_evaluation(5) as (model, (x, _), y):
        one_x, one_y = x[1:2], None if y is None else y[1:2]
        posterior, alone = model.encode(x, y), model.encode(one_x, one_y)
        z = posterior.rsample()
        one_z = z[1:2]
        pairs: dict[str, tuple[Tensor, Tensor]] = {}
        try:
            pairs["the posterior's mean"] = posterior.mean, alone.mean
        except NotImplementedError:
            pairs["log q(z|x)"] = posterior.log_prob(z), alone.log_prob(one_z)
        likelihood, of_one = model.decode(z, y), model.decode(one_z, one_y)
        pairs["the likelihood's mean"] = likelihood.mean, of_one.mean
        pairs["log p(x|z)"] = likelihood.log_prob(x), of_one.log_prob(one_x)
        for what, (together, by_itself) in pairs.items():
            apart = (together[1:2] - by_itself).abs().max()
            same = torch.allclose(together[1:2], by_itself, rtol=1e-3, atol=1e-4)
            fail_if(not same, f"{what} of an example moves by {apart:.3g} with its batch")


@check("change buffers in training mode only, schedules in on_train_step only")
def evaluation(pair: ModelWithLoss) -> None:
    """Evaluation without gradients works, and changes no state"""
    with pair.in_evaluation(3) as (model, batch, y):
        before = {name: tensor.clone() for name, tensor in _state(model).items()}
        first = pair.loss(model, batch)
        model.sample(2, None if y is None else y[:2])
        model.reconstruct(batch.x, y)
        if "importance" in pair.tags:
            model.log_likelihood(batch.x, y, samples=2)
        second = pair.loss(model, batch)
        after = _state(model)
        for name, tensor in before.items():
            fail_if(not after[name].equal(tensor), f"{name} changes in evaluation")
        fail_if(not first.equal(second), "the same batch gives another loss the second time")


@check("keep everything that a model learns in parameters and persistent buffers")
def weights(pair: ModelWithLoss) -> None:
    """Weights saved as safetensors and loaded again give the same outputs"""
    with pair.in_evaluation(3) as (model, batch, y):
        model.fit_prior(lambda: [batch])
        loaded = set_training(pair.build(seed=1), False)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.safetensors"
            for module, copy in ((model, loaded), (loss_of(model), loss_of(loaded))):
                save_weights(path, module.state_dict())
                load_into(copy, load_weights(path), path)
        found = []
        for one in (model, loaded):
            values = {"loss": pair.loss(one, batch)}
            with seeded(3, CPU):
                values["sample"] = one.sample(3, y)
            with seeded(3, CPU):
                values["reconstruct"] = one.reconstruct(batch.x, y)
            found.append(values)
        for what, value in found[0].items():
            fail_if(not value.equal(found[1][what]), f"{what} is different after loading")


def _state(model: BaseVAE) -> dict[str, Tensor]:
    """The state of model and loss."""
    loss = {f"the loss's {name}": v for name, v in loss_of(model).state_dict().items()}
    return {**model.state_dict(), **loss}
