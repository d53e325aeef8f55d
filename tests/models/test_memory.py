"""What is too large is refused before it is there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from vaezoo.config import build_config, resolve_components
from vaezoo.data.spec import DataSpec
from vaezoo.errors import OptionError
from vaezoo.runs.build import MOST_TENSORS, TooLargeError, build_model, limit_memory, meta_device
from vaezoo.runtime import memory
from vaezoo.runtime.memory import available_memory, physical_memory

BYTES = 4 * (10 * 20 + 20)
"""Of nn.Linear(10, 20)."""


def test_the_limit_is_exact() -> None:
    with limit_memory(2 * BYTES):
        nn.Linear(10, 20), nn.Linear(10, 20)
    with limit_memory(2 * BYTES - 1):
        nn.Linear(10, 20)
        with pytest.raises(TooLargeError) as caught:
            nn.Linear(10, 20)
    assert caught.value.limit == 2 * BYTES - 1
    nn.Linear(100, 100)  # and nothing is counted any more


def test_buffers_count_and_so_do_many_small_tensors() -> None:
    with limit_memory(100), pytest.raises(TooLargeError):
        nn.Module().register_buffer("x", torch.zeros(26))
    with limit_memory(2**62), pytest.raises(TooLargeError), meta_device():
        nn.ParameterList(torch.zeros(()) for _ in range(MOST_TENSORS + 1))


def test_other_threads_do_not_count() -> None:
    with limit_memory(BYTES):
        with ThreadPoolExecutor() as elsewhere:
            elsewhere.submit(nn.Linear, 100, 100).result()
        nn.Linear(10, 20)


def test_on_paper_nothing_is_allocated_or_drawn() -> None:
    before = torch.get_rng_state()
    with meta_device():
        layer = nn.Linear(10**6, 10**6)
        torch.rand(5, device="cpu")
    assert layer.weight.is_meta
    assert torch.equal(torch.get_rng_state(), before)


def test_available_memory_knows_the_limit_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    assert 0 < available_memory() <= physical_memory()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 40, 1 << 40))
    if Path("/proc/self/statm").exists():
        assert (1 << 39) < memory._of_the_process() < (1 << 40)
        monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 20, 1 << 20))
        assert memory._of_the_process() == available_memory() == 0


@pytest.mark.parametrize(
    "options",
    [
        {"bottleneck": {"latent_dim": 10**12}},
        {"bottleneck": {"latent_dim": 2**62}},
        {"network": {"hidden": [10**9]}},
        {"network": {"name": "mlp", "hidden": [10**9]}},
        {"network": {"hidden": [2**62]}},
        {"network": {"name": "mlp", "hidden": [10**5, 10**5]}},
    ],
)
def test_models_that_would_take_terabytes(
    options: dict[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    components = resolve_components({"model": "vanilla"}, options)
    config = build_config(components, options, {})
    monkeypatch.setattr(torch, "randn", None)  # nothing comes to be filled
    monkeypatch.setattr(nn.init, "uniform_", lambda tensor, *_, **__: asserted_meta(tensor))
    with pytest.raises(OptionError, match="does not fit in memory: make it smaller"):
        build_model(config, DataSpec(shape=(1, 32, 32)))


def asserted_meta(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.is_meta
    return tensor
