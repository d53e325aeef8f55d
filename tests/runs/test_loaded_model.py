"""A model that is loaded works as it did in training: the same layout of weights, reused memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vaezoo

SMALL = {"image_size": 16, "examples": 200, "test": 64, "hidden": (4, 8), "latent_dim": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("loaded") / "run"
    vaezoo.train("vanilla", data="sprites", out=out, steps=4, batch_size=16, device="cpu", **SMALL)
    return out


def test_it_gives_the_numbers_of_the_end_of_training_to_the_bit(run: Path) -> None:
    """Other strides choose other kernels, whose sums are rounded in another order."""
    opened = vaezoo.load_run(run, device="cpu")
    assert opened.evaluate().elbo == opened.summary["elbo"]
    model = vaezoo.create_model("vanilla", (1, 16, 16), hidden=(4, 8), latent_dim=2)
    strides = {name: weight.stride() for name, weight in model.named_parameters()}
    loaded = {name: weight.stride() for name, weight in opened.model.named_parameters()}
    assert loaded != strides, "none of the weights is channels-last"


def test_its_buffers_are_reused(run: Path) -> None:
    """Pages that are given back are faulted in again: more than half of the time of a decoder."""
    code = (
        "import resource, sys, torch, vaezoo\n"
        "model = vaezoo.load_run(sys.argv[1], device='cpu').model\n"
        "def faults():\n"
        "    for _ in range(5):\n"
        "        torch.ones(1 << 24)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "begun = faults()\n"
        "print(faults() - begun)\n"
    )
    command = [sys.executable, "-c", code, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # 5 tensors of 64 MiB are 81,920 small pages, or at least 140 huge ones.
    assert int(done.stdout) < 70
