"""Training on another device than the CPU, without a GPU: tensors of two devices do not mix.

The device `pretend` computes on the CPU, so that its numbers must be those of the CPU.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from fork_server import ForkServer
from vaezoo.plugins.registry import registry

HERE = Path(__file__).parent
OURS = [s.name for s in registry().specs("model") if registry().plugin(s).distribution == "vaezoo"]
QUICK = ["iwae", "vae_gan", "vq_vae"]
"""A bound of several samples, several phases, and buffers that training changes."""


def start(server: ForkServer, script: str, *args: str | Path) -> str:
    """What a script prints; it must end well."""
    env = {**os.environ, "PYTHONPATH": str(HERE.parent / "helpers")}
    done = server.run([sys.executable, HERE / script, *args], env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_steps(server: ForkServer, models: list[str]) -> None:
    printed = start(server, "pretend_step.py", *models)
    results = [json.loads(line) for line in printed.splitlines()]
    assert [result["model"] for result in results] == models
    for result in results:
        assert result["found"]["copies"] == 0, result["model"]
        found, expected = result["found"]["terms"], result["expected"]["terms"]
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3), result["model"]


def test_steps_are_those_of_the_cpu_and_copy_nothing(torch_server: ForkServer) -> None:
    check_steps(torch_server, QUICK)


@pytest.mark.slow
def test_steps_of_all_models(torch_server: ForkServer) -> None:
    check_steps(torch_server, OURS)


def test_a_run_is_that_of_the_cpu(torch_server: ForkServer, tmp_path: Path) -> None:
    start(torch_server, "pretend_job.py", tmp_path)
    found = {
        name: [
            ((row["kind"], row["step"]), row["terms"])
            for row in map(json.loads, (tmp_path / name / "metrics.jsonl").open())
            if "terms" in row
        ]
        for name in ("cpu", "pretend")
    }
    assert {kind for (kind, _), _ in found["cpu"]} == {"train", "validation"}
    for (where, terms), (expected, same) in zip(found["pretend"], found["cpu"], strict=True):
        assert where == expected
        assert terms == pytest.approx(same, rel=1e-5)
    cpu, pretend = (json.loads((tmp_path / name / "summary.json").read_text()) for name in found)
    for name in ("elbo", "mse", "ssim"):
        assert pretend[name] == pytest.approx(cpu[name], rel=1e-5), name
