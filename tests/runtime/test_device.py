"""Global switches that are restored after a run, and the settings of the allocator."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import Distribution, Normal

from vaezoo.runtime.device import move_module, precision_context

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.parametrize("checking", [True, False])
def test_distributions_check_nothing_in_a_run_and_as_before_afterwards(checking: bool) -> None:
    before = Distribution._validate_args
    Distribution.set_default_validate_args(checking)
    try:
        with precision_context("fp32", deterministic=True):
            Normal(0.0, -1.0)
        assert Distribution._validate_args is checking
        with pytest.raises(RuntimeError), precision_context("fp32", deterministic=True):
            raise RuntimeError
        assert Distribution._validate_args is checking
    finally:
        Distribution.set_default_validate_args(before)


@pytest.mark.skipif(
    not _HUGE_PAGES.exists() or "[never]" in _HUGE_PAGES.read_text(),
    reason="the system has no huge pages",
)
def test_large_tensors_lie_in_huge_pages_that_are_taken_when_used() -> None:
    code = (
        "import torch\n"
        "from vaezoo.runtime.device import tune_malloc\n"
        "def kib(name):\n"
        "    lines = open('/proc/self/smaps_rollup')\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith(name))\n"
        "before = kib('Rss:')\n"
        "tuned = tune_malloc()\n"
        "idle = kib('Rss:') - before\n"
        "x = torch.ones(16 << 20)\n"
        "print(int(tuned), idle, kib('AnonHugePages:'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tuned, idle, huge = map(int, done.stdout.split())
    if not tuned:
        pytest.skip("not glibc")
    assert idle < 16 << 10
    assert huge >= 32 << 10  # half of the tensor: a system short of memory gives fewer


@pytest.mark.parametrize("channels", [1, 3])
def test_weights_of_images_are_laid_out_as_torch_does(channels: int) -> None:
    """Those of one channel too: `contiguous` leaves their strides, and then other kernels run."""
    layers = [nn.Conv2d(channels, 4, 3), nn.ConvTranspose2d(4, channels, 3), nn.BatchNorm2d(4)]
    ours, theirs = nn.ModuleList(layers), nn.ModuleList(copy.deepcopy(layers))
    move_module(ours, torch.device("cpu"))
    theirs.to(memory_format=torch.channels_last)
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert mine.stride() == other.stride()


def test_weights_of_volumes_stay_as_they_are() -> None:
    layer = nn.Conv3d(2, 3, 3)
    stride = layer.weight.stride()
    assert move_module(layer, torch.device("cpu")).weight.stride() == stride
