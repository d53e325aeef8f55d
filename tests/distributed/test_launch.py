"""Processes find one another although the store still holds what an attempt before left there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from vaezoo.distributed.launch import agree
from vaezoo.errors import ProcessLostError

SOON, LATE = timedelta(seconds=10), 0.2


def attempt(store: dist.Store, count: int, late: int | None = None) -> set[str]:
    """The names that processes find. late: the one that comes after the others."""

    def one(rank: int) -> str:
        time.sleep(LATE if rank == late else 0.0)
        return agree(store, rank, count, SOON)

    with ThreadPoolExecutor(count) as threads:
        return set(threads.map(one, range(count)))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("late", [None, 0, 1])
def test_every_attempt_has_a_name_of_its_own(count: int, late: int | None) -> None:
    store, names = dist.HashStore(), set()
    for _ in range(3):
        found = attempt(store, count, late)
        assert len(found) == 1, "the processes of one attempt are in different places"
        names |= found
    assert len(names) == 3, "two attempts are in one place"


def test_who_came_before_is_not_who_comes() -> None:
    """A process that is alone in this attempt does not take an earlier one's word for another."""
    store = dist.HashStore()
    attempt(store, 2)
    with pytest.raises(ProcessLostError, match="not all of 2 processes came within 1 s"):
        agree(store, 0, 2, timedelta(seconds=1))


def test_an_address_of_an_attempt_before_is_not_found() -> None:
    store = dist.HashStore()
    (first,) = attempt(store, 2)
    dist.PrefixStore(first, store).set("address", "of a process that is dead")
    (second,) = attempt(store, 2)
    assert not dist.PrefixStore(second, store).check(["address"])


PROCESS = """
import os, time
from vaezoo.distributed.launch import on_rank0_broadcast, job
time.sleep(float(os.environ["LATE"]))
with job("cpu"):
    print(on_rank0_broadcast(lambda: os.getppid()), flush=True)
"""


def test_a_job_that_is_started_again_meets_although_the_store_is_the_same() -> None:
    """As torchrun does it; the second process of the second attempt leaves its address late."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for late in ("0", "2"):
        running = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS],
                stdout=subprocess.PIPE,
                text=True,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": "2",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(server.port),
                    "TORCHELASTIC_USE_AGENT_STORE": "True",
                    "LATE": late if rank else "0",
                },
            )
            for rank in range(2)
        ]
        told = [process.communicate(timeout=60)[0].strip() for process in running]
        assert told == [str(os.getpid())] * 2
