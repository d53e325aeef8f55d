"""Our Adam is torch's to the bit, and training starts without torch.compile's machinery."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaezoo.training.train_step import Adam


def trained(kind: type[torch.optim.Adam], steps: int, fused: bool) -> list[Tensor]:
    """Weights and moments after some steps, with a save and a load between them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    x = torch.randn(16, 5)
    optimizer = kind(model.parameters(), lr=0.01, betas=(0.8, 0.95), fused=fused)
    for step in range(steps):
        if step == steps // 2:
            saved = optimizer.state_dict()
            optimizer = kind(model.parameters(), lr=0.5, fused=fused)
            optimizer.load_state_dict(saved)
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return [*model.parameters(), *moments]


@pytest.mark.parametrize("fused", [True, False])
def test_it_is_adam(fused: bool) -> None:
    ours, theirs = trained(Adam, 8, fused), trained(torch.optim.Adam, 8, fused)
    assert len(ours) == 4 + 4 * 3
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_step_is_not_differentiated() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = Adam([weight])
    weight.square().sum().backward()
    optimizer.step()
    assert weight.is_leaf
    assert weight.grad is not None
    assert not weight.grad.requires_grad


def test_training_brings_in_nothing_of_compiling(tmp_path: Path) -> None:
    """It takes two seconds to import, before the first step."""
    program = f"""
import sys, vaezoo
vaezoo.train("vanilla", data="sprites", examples=64, test=16, image_size=16, hidden=(4, 4),
             steps=2, out={str(tmp_path / "run")!r}, device="cpu")
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split()[-1] == "False", done.stderr
