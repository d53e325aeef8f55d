"""Gradients of several processes equal those of one, for all models of the zoo; the collectives.

One group of processes does all of it, because starting a process takes longer than the work. They
are forked from one that has torch imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fork_server import ForkServer
from vaezoo.distributed import all_gather, all_reduce, local_chunk, local_only, rank, world_size
from vaezoo.plugins.registry import registry
from vaezoo.testing import multi_process
from vaezoo.testing.multi_process import compare
from vaezoo.testing.subjects import ModelWithLoss

OURS = [s.name for s in registry().specs("model") if registry().plugin(s).distribution == "vaezoo"]
MORE = {
    "dip_vae, type ii": ModelWithLoss("dip_vae", options={"dip_type": "ii"}),
    "vq_vae, by gradient": ModelWithLoss("vq_vae", options={"codebook": "gradient"}),
    "vq_vae, no code revived": ModelWithLoss("vq_vae", options={"dead_code_steps": None}),
    "rae, its decoder limited": ModelWithLoss("rae", options={"regulariser": "spectral_norm"}),
    "rae, its decoder's slope": ModelWithLoss("rae", options={"regulariser": "gradient_penalty"}),
    "iwae, doubly": ModelWithLoss("iwae", options={"gradient": "doubly_reparameterized"}),
    "beta_tc, weighted": ModelWithLoss("beta_tc", options={"estimator": "weighted"}),
    "perceptual_gan": ModelWithLoss(
        "vanilla", "perceptual_gan", options={"gan": "hinge", "lecam": 0.1, "r1": 0.5}
    ),
    "vanilla, dense": ModelWithLoss("vanilla", parts={"network": "mlp"}),
    "vanilla, residual": ModelWithLoss("vanilla", parts={"network": "resnet"}),
}
"""Options that take other code paths than the defaults."""


@pytest.fixture(scope="module", autouse=True)
def _forked(torch_server: ForkServer) -> Iterator[None]:
    honest = multi_process.subprocess
    names = {name: getattr(honest, name) for name in ("DEVNULL", "PIPE", "TimeoutExpired")}
    multi_process.subprocess = SimpleNamespace(Popen=torch_server.start, **names)
    yield
    multi_process.subprocess = honest


@pytest.fixture(scope="module")
def differences() -> dict[str, str | None]:
    pairs = {**{name: ModelWithLoss(name) for name in OURS}, **MORE}
    return dict(zip(pairs, compare(list(pairs.values()), 2), strict=True))


@pytest.mark.parametrize("name", [*OURS, *MORE])
def test_two_processes_find_the_gradients_of_one(
    differences: dict[str, str | None], name: str
) -> None:
    assert differences[name] is None


def test_three_processes_find_the_gradients_of_one() -> None:
    names = ["beta_tc", "factor_vae", "vq_vae"]
    assert compare([ModelWithLoss(name) for name in names], 3) == [None] * len(names)


WIDE_RANGE = ["vae_gan", "vamp_prior", "rae", "vq_vae", "ladder_vae"]
"""Three phases; parameters outside of layers; weights read elsewhere; codes; a hierarchy."""


def test_two_processes_with_sharded_layers_find_the_gradients_of_one() -> None:
    """All layers are sharded, also small ones."""
    found = compare([ModelWithLoss(name) for name in WIDE_RANGE], 2, sharded=True)
    assert dict(zip(WIDE_RANGE, found, strict=True)) == dict.fromkeys(WIDE_RANGE)


@pytest.mark.slow
def test_all_models_can_be_sharded() -> None:
    pairs = {**{name: ModelWithLoss(name) for name in OURS}, **MORE}
    slope = pairs.pop("rae, its decoder's slope")
    del pairs["perceptual_gan"]  # its no_shard_reason is tested with the loss
    found = compare(list(pairs.values()), 2, sharded=True)
    assert dict(zip(pairs, found, strict=True)) == dict.fromkeys(pairs)
    loss = slope.build().loss
    assert loss is not None
    assert "differentiates their gradients" in loss.no_shard_reason


FORGETFUL = """
import sys
import torch.distributed as dist
import vaezoo_adversarial.factor_vae, vaezoo_discrete.vq, vaezoo_objectives.beta_tc
import vaezoo_objectives.dip_vae, vaezoo_objectives.mmd, vaezoo_objectives.sigma_vae
from vaezoo_vanilla.loss import ELBOLoss

def forget(module, *names):
    for name in {*names} & {*vars(module)}:
        setattr(module, name, lambda values, *others: values)

HONEST = {}

class Remembers(ELBOLoss):
    forgotten = None

    def __init__(self, *args):
        super().__init__(*args)
        if not dist.is_initialized():
            return
        for place, name in [
            ("__main__", "sync_batch_norm"), ("vaezoo.training.train_step", "average_gradients")
        ]:
            module = sys.modules[place]
            honest = HONEST.setdefault(name, vars(module)[name])
            setattr(module, name, (lambda *_: None) if name == self.forgotten else honest)

class ForgetsBatchNorm(Remembers):
    forgotten = "sync_batch_norm"

class ForgetsToAverage(Remembers):
    forgotten = "average_gradients"

if dist.is_initialized():  # in the processes that share, and not where the test runs
    for name, module in [*sys.modules.items()]:
        if name.startswith(("vaezoo_objectives", "vaezoo_adversarial", "vaezoo_discrete")):
            forget(module, "all_gather", "local_chunk", "all_reduce")
"""


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[Path]:
    """A plugin file whose import turns the collectives off in the processes of `compare`."""
    file = tmp_path / "forgetful.py"
    file.write_text(FORGETFUL)
    yield file
    registry.cache_clear()


def test_without_collectives_the_gradients_differ(forgetful: Path) -> None:
    """Also without synchronized batch norm, and without the average of the gradients."""
    names = ["dip_vae", "beta_tc", "wae_mmd", "info_vae", "sigma_vae", "factor_vae", "vq_vae"]
    pairs = {
        "batch norm": ModelWithLoss("vanilla", f"{forgetful}:ForgetsBatchNorm"),
        "gradients": ModelWithLoss("vanilla", f"{forgetful}:ForgetsToAverage"),
        "nothing forgotten": ModelWithLoss("vanilla", f"{forgetful}:Remembers"),
        **{name: ModelWithLoss(name) for name in names},
    }
    found = dict(zip(pairs, compare(list(pairs.values())), strict=True))
    assert [name for name, different in found.items() if not different] == ["nothing forgotten"]


def test_with_one_process_collectives_return_their_input() -> None:
    values = torch.arange(6.0).view(3, 2)
    assert (world_size(), rank()) == (1, 0)
    assert all_gather(values) is values
    assert local_chunk(values) is values
    assert all_reduce(values) is values
    with local_only():
        assert world_size() == 1


def test_all_gather_needs_a_value_for_each_example() -> None:
    with pytest.raises(ValueError, match="for each example"):
        all_gather(torch.tensor(1.0))
