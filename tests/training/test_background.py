"""Checkpoints beside training: one at a time, copies of their own, errors that come back."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from vaezoo.checkpoint.async_writer import AsyncWriter, StagingBuffers
from vaezoo.errors import RunError

CPU = torch.device("cpu")


class TestBackground:
    def test_runs_beside_the_caller_and_is_waited_for(self) -> None:
        go, done = threading.Event(), threading.Event()
        background = AsyncWriter()
        background.run(lambda: (go.wait(10), done.set())[1])
        assert background.busy
        assert not done.is_set()
        go.set()
        background.wait()
        assert done.is_set()
        assert not background.busy

    def test_one_at_a_time(self) -> None:
        active, most = 0, 0

        def job() -> None:
            nonlocal active, most
            active += 1
            most = max(most, active)
            time.sleep(0.01)
            active -= 1

        background = AsyncWriter()
        for _ in range(4):
            background.run(job)
        background.wait()
        assert most == 1

    @pytest.mark.parametrize("look", ["look", "wait", "run"])
    def test_an_error_comes_back_once(self, look: str) -> None:
        def fail() -> None:
            raise RunError("the disk is full")

        background = AsyncWriter()
        background.run(fail)
        while background.busy:
            time.sleep(0.001)
        with pytest.raises(RunError, match="disk is full"):
            background.run(lambda: None) if look == "run" else getattr(background, look)()
        background.wait()
        background.look()

    def test_a_look_does_not_wait(self) -> None:
        go = threading.Event()
        background = AsyncWriter()
        background.run(lambda: (go.wait(10), None)[1])
        background.look()
        assert background.busy
        go.set()
        background.wait()


class TestHostCopy:
    def test_stays_as_it_was(self) -> None:
        tensor = torch.ones(2, 3)
        taken = StagingBuffers().take({"model": {"a": tensor}}, CPU)
        tensor.zero_()
        assert taken["model"]["a"].equal(torch.ones(2, 3))

    def test_its_memory_is_used_again(self) -> None:
        copy, tensor = StagingBuffers(), torch.ones(2, 3)
        first = copy.take({"model": {"a": tensor}}, CPU)["model"]["a"]
        tensor.add_(1)
        second = copy.take({"model": {"a": tensor}}, CPU)["model"]["a"]
        assert second.data_ptr() == first.data_ptr()
        assert second.equal(tensor)

    def test_shapes_may_change(self) -> None:
        copy = StagingBuffers()
        for rows in (1, 4, 2):
            values = torch.randn(rows, 3)
            assert copy.take({"window": {"v": values}}, CPU)["window"]["v"].equal(values)

    def test_keeps_the_layout(self) -> None:
        tensor = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
        taken = StagingBuffers().take({"model": {"a": tensor}}, CPU)["model"]["a"]
        assert taken.stride() == tensor.stride()
        assert taken.equal(tensor)
