"""The CPUs that a process may use, and torch's threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo.runtime import available_cpus, is_crowded
from vaezoo.runtime import device as device_module
from vaezoo.runtime.device import resolve_device, set_threads
from vaezoo.training.loggers import ProgressCallback


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 cores, all of which the process may use."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.usefixtures("cores")
class TestQuota:
    def test_without_a_quota(self, tmp_path: Path) -> None:
        assert available_cpus(tmp_path) == 64
        write(tmp_path, sys__fs__cgroup__cpu_dot_max="max 100000\n")
        assert available_cpus(tmp_path) == 64

    @pytest.mark.parametrize(("quota", "cpus"), [(200_000, 2), (250_000, 2), (50_000, 1)])
    def test_version_2(self, tmp_path: Path, quota: int, cpus: int) -> None:
        write(tmp_path, sys__fs__cgroup__cpu_dot_max=f"{quota} 100000\n")
        assert available_cpus(tmp_path) == cpus

    def test_version_2_of_a_group_above(self, tmp_path: Path) -> None:
        """A job scheduler limits the job; the process is in a step of it."""
        write(tmp_path, proc__self__cgroup="0::/slurm/job_7/step_0\n")
        job = tmp_path / "sys/fs/cgroup/slurm/job_7"
        (job / "step_0").mkdir(parents=True)
        (job / "cpu.max").write_text("300000 100000\n")
        (job / "step_0" / "cpu.max").write_text("max 100000\n")
        assert available_cpus(tmp_path) == 3

    @pytest.mark.parametrize("name", ["cpu", "cpu,cpuacct"])
    @pytest.mark.parametrize(("quota", "cpus"), [(400_000, 4), (-1, 64)])
    def test_version_1(self, tmp_path: Path, name: str, quota: int, cpus: int) -> None:
        write(tmp_path, proc__self__cgroup=f"5:devices:/\n3:{name}:/docker/abc\n")
        group = tmp_path / "sys/fs/cgroup" / name / "docker/abc"
        group.mkdir(parents=True)
        (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (group / "cpu.cfs_period_us").write_text("100000\n")
        assert available_cpus(tmp_path) == cpus

    def test_affinity(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 9}, raising=False)
        assert available_cpus(tmp_path) == 3


@pytest.mark.parametrize(
    ("running", "cores", "crowded"), [(1, 2, False), (2, 2, True), (2, 4, False), (3, 4, True)]
)
def test_a_machine_is_crowded_if_others_use_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: int, cores: int, crowded: bool
) -> None:
    """One of the running processes is this one."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    write(tmp_path, proc__loadavg=f"9.50 9.00 9.00 {running}/321 4242\n")
    assert is_crowded(tmp_path) == crowded
    assert not is_crowded(tmp_path / "nothing")


def test_threads_are_at_most_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "available_cpus", lambda: 2)
    torch.set_num_threads(7)
    resolve_device("cpu")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)  # as OMP_NUM_THREADS=1 does
    resolve_device("cpu")
    assert torch.get_num_threads() == 1
    set_threads(5)
    assert torch.get_num_threads() == 5


def test_a_run_trains_with_the_threads_that_were_asked_for(tmp_path: Path) -> None:
    found = []

    class Counts(ProgressCallback):
        def on_step_end(self) -> None:
            found.append(torch.get_num_threads())

    vaezoo.train("vanilla", out=tmp_path / "r", threads=3, callback=Counts(), **SMALL_JOB)
    assert found == [3] * 6
