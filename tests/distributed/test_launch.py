"""A restarted job connects, although the store still has the keys of the attempt before."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from fork_server import ForkServer
from vaezoo.distributed.launch import agree_on_prefix
from vaezoo.errors import ProcessLostError

SOON, LATE = timedelta(seconds=10), 0.2


def attempt(store: dist.Store, count: int, late: int | None = None) -> set[str]:
    """The prefixes that the ranks agree on. late: the rank that starts after the others."""

    def one(rank: int) -> str:
        time.sleep(LATE if rank == late else 0.0)
        return agree_on_prefix(store, rank, count, SOON)

    with ThreadPoolExecutor(count) as threads:
        return set(threads.map(one, range(count)))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("late", [None, 0, 1])
def test_each_attempt_has_its_own_prefix(count: int, late: int | None) -> None:
    store, prefixes = dist.HashStore(), set()
    for _ in range(3):
        found = attempt(store, count, late)
        assert len(found) == 1, "the ranks of one attempt have different prefixes"
        prefixes |= found
    assert len(prefixes) == 3, "two attempts have one prefix"


def test_a_rank_of_an_earlier_attempt_does_not_count() -> None:
    """A rank that is alone in this attempt does not find the words of another attempt's ranks."""
    store = dist.HashStore()
    attempt(store, 2)
    with pytest.raises(ProcessLostError, match="not all of 2 processes came within 1 s"):
        agree_on_prefix(store, 0, 2, timedelta(seconds=1))


def test_a_key_of_an_earlier_attempt_is_not_found() -> None:
    store = dist.HashStore()
    (first,) = attempt(store, 2)
    dist.PrefixStore(first, store).set("address", "of a process that is dead")
    (second,) = attempt(store, 2)
    assert not dist.PrefixStore(second, store).check(["address"])


PROCESS = """
import os, time
from vaezoo.distributed.launch import on_rank0_broadcast, process_group
time.sleep(float(os.environ["LATE"]))
with process_group("cpu"):
    print(on_rank0_broadcast(lambda: os.getppid()), flush=True)
"""


def test_a_restarted_job_connects_with_the_same_store(torch_server: ForkServer) -> None:
    """As torchrun does it. The second rank of the second attempt starts late."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for late in ("0", "2"):
        running = [
            torch_server.start(
                [sys.executable, "-c", PROCESS],
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
        printed = [process.communicate(timeout=60)[0].strip() for process in running]
        assert printed == [str(torch_server.pid)] * 2
