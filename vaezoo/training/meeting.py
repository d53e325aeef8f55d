"""Where the processes of a job find one another: in a new place each time they are started.

torchrun keeps one store for all its attempts, and a group of processes leaves its addresses there:
a process that is started again would read the address of one that is dead, and wait for it.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from vaezoo.errors import ProcessLostError

_PAUSE = 0.02
"""Seconds between two looks at who is there."""


def meet(timeout: timedelta) -> tuple[Store, int, int]:
    """The store of this attempt, the number of this process in it, and how many there are.

    ProcessLostError where the others do not come.
    """
    store, rank, count = next(rendezvous("env://", timeout=timeout))
    return PrefixStore(agree(store, rank, count, timeout), store), rank, count


def agree(store: Store, rank: int, count: int, timeout: timedelta) -> str:
    """A name that all processes of this attempt find, and that no attempt before had.

    Each leaves a word that nobody else has. The name is made of all words, and holds as soon as
    every process has seen the same ones: a word of an attempt before is seen by nobody who is
    there now and left it.
    """
    store.set(f"here/{rank}", uuid.uuid4().hex)
    words = [f"here/{other}" for other in range(count)]
    end = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < end:
        if store.check(words):
            name = hashlib.sha256(b" ".join(map(store.get, words))).hexdigest()[:16]
            store.set(f"{name}/{rank}", "seen")
            if store.check([f"{name}/{other}" for other in range(count)]):
                return name
        time.sleep(_PAUSE)
    raise ProcessLostError(f"not all of {count} processes came within {timeout.seconds} s")
