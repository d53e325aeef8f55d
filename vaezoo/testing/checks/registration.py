"""Checks of what is registered and stored: imports, options, and weights."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml

from vaezoo.checkpoint.format import load_into, load_weights, save_weights
from vaezoo.data.base import Batch
from vaezoo.losses.base import LossOutput, loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.options import Options, describe, format_value, parse, to_dict
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import Spec
from vaezoo.runtime.seed import seeded
from vaezoo.testing.check import CheckFailed, CheckSkipped, check, fail_if
from vaezoo.testing.subjects import CPU, ModelWithLoss, compute_loss

_SECONDS = 60

_WITHOUT_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "numpy", "PIL"):
            raise ImportError(f"it imports {name}")

sys.meta_path.insert(0, Blocker())
import importlib
from vaezoo.plugins.loader import collect
for spec in collect(importlib.import_module(sys.argv[1])):
    spec.load_options()
"""


@check("put hooks and options into modules that do not import torch; give targets as strings")
def registration(pair: ModelWithLoss) -> None:
    """Registering it and reading its options imports no torch"""
    check_registration(pair.model_spec if pair.name == pair.model_spec.name else pair.loss_spec)


def check_registration(spec: Spec) -> None:
    """CheckFailed if the plugin that registers this spec imports torch or another large library."""
    known = registry()
    if spec not in known.specs(spec.kind):
        raise CheckSkipped("no plugin registers it")
    plugin = known.plugin(spec)
    if not plugin.is_installed:
        raise CheckSkipped("its plugin is not installed")
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, plugin.module],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    if done.returncode:
        raise CheckFailed(f"{plugin.module}: {done.stderr.strip().splitlines()[-1]}")


@check("keep everything that a model learns in parameters and persistent buffers")
def weights(pair: ModelWithLoss) -> None:
    """Weights saved as safetensors and loaded again give the same outputs"""
    with pair.in_evaluation() as model:
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
                raise CheckFailed(f"{what} is different after loading")


@check(
    "give each option a default, a description, and a type that YAML and the command line support"
)
def options(pair: ModelWithLoss) -> None:
    """Options can be written as YAML and as text and read again, and have descriptions"""
    check_options(pair.model_options, f"model {pair.model_spec.name}")
    check_options(pair.loss_options, f"loss {pair.loss_spec.name}")


def check_options(options: Options, what: str) -> None:
    """CheckFailed unless these options are the same after YAML and after the command line."""
    cls = type(options)
    for info in describe(cls):
        fail_if(not info.help, f"{what}: option {info.name} has no description")
    read = yaml.safe_load(yaml.safe_dump(to_dict(options), sort_keys=False, allow_unicode=True))
    as_text = {name: format_value(value) for name, value in to_dict(options).items()}
    for how, values in (("YAML", read), ("text", as_text)):
        back = parse(cls, values, what)
        for name in cls.model_fields:
            if getattr(back, name) != getattr(options, name):
                raise CheckFailed(
                    f"{what}: option {name} is {getattr(options, name)!r}, but read from "
                    f"{how} it is {getattr(back, name)!r}"
                )


def _value(what: str, pair: ModelWithLoss, model: BaseVAE, batch: Batch) -> torch.Tensor:
    y = model.labels(batch.y)
    if what == "loss":
        output: LossOutput = compute_loss(pair, model, batch)
        return output.loss
    with seeded(3, CPU):
        return model.sample(3, y) if what == "sample" else model.reconstruct(batch.x, y)
