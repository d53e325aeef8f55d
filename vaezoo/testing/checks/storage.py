"""What is saved comes back: weights through safetensors, options through YAML and text."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import yaml

from vaezoo.checkpoint.format import load_into, load_weights, save_weights
from vaezoo.data.base import Batch
from vaezoo.losses.base import LossOutput, loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.options import Options, describe, format_value, parse, to_dict
from vaezoo.runtime.seed import seeded
from vaezoo.testing.check import CheckFailed, check
from vaezoo.testing.model_with_loss import CPU, ModelWithLoss, objective


@check("keep what a model has learned in parameters and persistent buffers, all of it")
def weights(pair: ModelWithLoss) -> None:
    """Weights come back from safetensors, and with them every number"""
    with pair.watched() as model:
        batch = pair.batch(3)
        model.fit_prior(lambda: [batch])
        other = pair.build(seed=1).eval()
        loss_of(other).eval()
        with tempfile.TemporaryDirectory() as folder:
            for name, module, copy in (
                ("model", model, other),
                ("loss", loss_of(model), loss_of(other)),
            ):
                path = Path(folder) / f"{name}.safetensors"
                save_weights(path, module.state_dict())
                load_into(copy, load_weights(path), path)
        for what in ("loss", "sample", "reconstruct"):
            if not torch.equal(_value(what, pair, model, batch), _value(what, pair, other, batch)):
                raise CheckFailed(f"{what} comes out otherwise after loading")


@check("give each option a default, a description, and a type that YAML and a command line know")
def options(pair: ModelWithLoss) -> None:
    """Options come back from YAML and from text, and each one is described"""
    check_options(pair.model_options, f"model {pair.model_spec.name}")
    check_options(pair.loss_options, f"loss {pair.loss_spec.name}")


def check_options(options: Options, what: str) -> None:
    """Broken unless these options survive YAML and the command line."""
    cls = type(options)
    for info in describe(cls):
        if not info.help:
            raise CheckFailed(f"{what}: option {info.name} has no description")
    read = yaml.safe_load(yaml.safe_dump(to_dict(options), sort_keys=False, allow_unicode=True))
    as_text = {name: format_value(value) for name, value in to_dict(options).items()}
    for how, values in (("YAML", read), ("text", as_text)):
        back = parse(cls, values, what)
        for name in cls.model_fields:
            if getattr(back, name) != getattr(options, name):
                raise CheckFailed(
                    f"{what}: option {name} is {getattr(options, name)!r}, and comes back from "
                    f"{how} as {getattr(back, name)!r}"
                )


def _value(what: str, pair: ModelWithLoss, model: BaseVAE, batch: Batch) -> torch.Tensor:
    y = model.labels(batch.y)
    if what == "loss":
        output: LossOutput = objective(pair, model, batch)
        return output.loss
    with seeded(3, CPU):
        return model.sample(3, y) if what == "sample" else model.reconstruct(batch.x, y)
