"""Checkpoints beside training: one at a time, copies of their own, errors that come back."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from vaezoo.errors import RunError
from vaezoo.training.checkpoints import AsyncWriter, StagingBuffers

CPU = torch.device("cpu")


class TestAsyncWriter:
    def test_runs_beside_the_caller_and_is_waited_for(self) -> None:
        go, done = threading.Event(), threading.Event()
        writer = AsyncWriter()
        writer.run(lambda: (go.wait(10), done.set())[1])
        assert writer.busy
        assert not done.is_set()
        go.set()
        writer.wait()
        assert done.is_set()
        assert not writer.busy

    def test_one_at_a_time(self) -> None:
        active, most = 0, 0

        def job() -> None:
            nonlocal active, most
            active += 1
            most = max(most, active)
            time.sleep(0.01)
            active -= 1

        writer = AsyncWriter()
        for _ in range(4):
            writer.run(job)
        writer.wait()
        assert most == 1

    @pytest.mark.parametrize("call", ["check", "wait", "run"])
    def test_an_error_comes_back_once(self, call: str) -> None:
        def fail() -> None:
            raise RunError("the disk is full")

        writer = AsyncWriter()
        writer.run(fail)
        while writer.busy:
            time.sleep(0.001)
        with pytest.raises(RunError, match="disk is full"):
            writer.run(lambda: None) if call == "run" else getattr(writer, call)()
        writer.wait()
        writer.check()

    def test_a_check_does_not_wait(self) -> None:
        go = threading.Event()
        writer = AsyncWriter()
        writer.run(lambda: (go.wait(10), None)[1])
        writer.check()
        assert writer.busy
        go.set()
        writer.wait()


class TestStagingBuffers:
    def test_stays_as_it_was(self) -> None:
        tensor = torch.ones(2, 3)
        taken = StagingBuffers().copy({"model": {"a": tensor}}, CPU)
        tensor.zero_()
        assert taken["model"]["a"].equal(torch.ones(2, 3))

    def test_its_memory_is_used_again(self) -> None:
        buffers, tensor = StagingBuffers(), torch.ones(2, 3)
        first = buffers.copy({"model": {"a": tensor}}, CPU)["model"]["a"]
        tensor.add_(1)
        second = buffers.copy({"model": {"a": tensor}}, CPU)["model"]["a"]
        assert second.data_ptr() == first.data_ptr()
        assert second.equal(tensor)

    def test_shapes_may_change(self) -> None:
        buffers = StagingBuffers()
        for rows in (1, 4, 2):
            values = torch.randn(rows, 3)
            assert buffers.copy({"window": {"v": values}}, CPU)["window"]["v"].equal(values)

    def test_keeps_the_layout(self) -> None:
        tensor = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
        taken = StagingBuffers().copy({"model": {"a": tensor}}, CPU)["model"]["a"]
        assert taken.stride() == tensor.stride()
        assert taken.equal(tensor)
