"""Checks of repeatability: by seed, for any batch, and without side effects of evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.losses.base import loss_of
from vaezoo.runtime.seed import seeded
from vaezoo.testing.check import CheckFailed, check, fail_if
from vaezoo.testing.subjects import CPU, ModelWithLoss, compute_loss


@check("draw all random numbers from torch's generator")
def seeds(pair: ModelWithLoss) -> None:
    """The same seed gives the same weights, steps and samples; another seed gives others"""
    first, second = pair.build(seed=0), pair.build(seed=0)
    for name, tensor in first.state_dict().items():
        if not tensor.equal(second.state_dict()[name]):
            raise CheckFailed(f"{name} has other initial values with the same seed")
    batch = pair.batch()
    steps = [list(pair.train(model, batch, 2)) for model in (first, second)]
    if not all(a.equal(b) for a, b in zip(*steps, strict=True)):
        raise CheckFailed("training steps differ with the same seed")
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
    with pair.in_evaluation() as model:
        batch = pair.batch(5)
        y = model.labels(batch.y)
        whole = model.encode(batch.x, y)
        alone = model.encode(batch.x[1:2], None if y is None else y[1:2])
        z = whole.rsample()
        pairs: dict[str, tuple[Tensor, Tensor]] = {}
        try:
            pairs["the posterior's mean"] = (whole.mean[1:2], alone.mean)
        except NotImplementedError:
            pairs["log q(z|x)"] = (whole.log_prob(z)[1:2], alone.log_prob(z[1:2]))
        decoded = model.decode(z, y), model.decode(z[1:2], None if y is None else y[1:2])
        pairs["the likelihood's mean"] = (decoded[0].mean[1:2], decoded[1].mean)
        pairs["log p(x|z)"] = (decoded[0].log_prob(batch.x)[1:2], decoded[1].log_prob(batch.x[1:2]))
        for what, (together, by_itself) in pairs.items():
            if not torch.allclose(together, by_itself, rtol=1e-3, atol=1e-4):
                apart = (together - by_itself).abs().max()
                raise CheckFailed(f"{what} of an example moves by {apart:.3g} with its batch")


@check("change buffers in training mode only, schedules in on_train_step only")
def evaluation(pair: ModelWithLoss) -> None:
    """Evaluation without gradients works, and changes no state"""
    with pair.in_evaluation() as model:
        batch = pair.batch(3)
        y = model.labels(batch.y)
        before = {k: v.clone() for k, v in {**model.state_dict(), **_loss_state(pair)}.items()}
        first = compute_loss(pair, model, batch)
        model.sample(2, None if y is None else y[:2])
        model.reconstruct(batch.x, y)
        if "importance" in pair.tags:
            model.log_likelihood(batch.x, y, samples=2)
        second = compute_loss(pair, model, batch)
        after = {**model.state_dict(), **_loss_state(pair)}
        for name, tensor in before.items():
            fail_if(not after[name].equal(tensor), f"{name} changes in evaluation")
        if not first.loss.equal(second.loss):
            raise CheckFailed("the same batch gives another loss the second time")


def _loss_state(pair: ModelWithLoss) -> dict[str, Tensor]:
    return {f"the loss's {k}": v for k, v in loss_of(pair.stepped).state_dict().items()}
