"""Process groups of torchrun jobs: start, restart, and objects that ranks send to one another."""

from __future__ import annotations

import functools
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from vaezoo.distributed import local_only, raise_peer_errors, rank, world_size
from vaezoo.errors import OptionError, ProcessLostError
from vaezoo.runtime.device import Runtime, derive_seed, resolve_device, resolve_precision

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

ResultT = TypeVar("ResultT")

_TIMEOUT = timedelta(seconds=30)
"""Limit for a collective of a training step: a peer whose machine is gone closes no connection."""
_HOST_TIMEOUT = timedelta(days=1)
_POLL_SECONDS = 0.02


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Initialize torch.distributed in the body, if torchrun started more than one process.

    device: as in --device. Each process takes the GPU of its local rank. OptionError if a process
    has no device; ProcessLostError if not all processes come.
    """
    if _torchrun_env("WORLD_SIZE", 1) == 1 or not dist.is_available() or dist.is_initialized():
        yield
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    chosen = _local_device(device)
    with raise_peer_errors():
        store, rank, world_size = next(rendezvous("env://", timeout=_TIMEOUT))
        prefix = agree_on_prefix(store, rank, world_size, _TIMEOUT)
        dist.init_process_group(
            "nccl" if chosen.type == "cuda" else "gloo",
            store=PrefixStore(prefix, store),
            rank=rank,
            world_size=world_size,
            timeout=_TIMEOUT,
            device_id=chosen if chosen.type == "cuda" else None,
        )
        _host_group(dist.group.WORLD)
    yield
    # Not after an error: the other ranks must see that this process is gone.
    dist.destroy_process_group()


def agree_on_prefix(store: Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """A prefix for keys in the store that all ranks of this attempt share, and no earlier one had.

    torch (2.9 to 2.14) keeps one store for all restarts of a job, so a rank would read there the
    address of a process of the attempt before, and wait for it. The prefix is the hash of one
    random word of each rank, and holds when every rank has seen the same words.
    ProcessLostError if not all ranks come within the timeout.
    """
    store.set(f"here/{rank}", uuid.uuid4().hex)
    words = [f"here/{other}" for other in range(world_size)]
    end = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < end:
        if store.check(words):
            prefix = hashlib.sha256(b" ".join(map(store.get, words))).hexdigest()[:16]
            store.set(f"{prefix}/{rank}", "seen")
            if store.check([f"{prefix}/{other}" for other in range(world_size)]):
                return prefix
        time.sleep(_POLL_SECONDS)
    raise ProcessLostError(f"not all of {world_size} processes came within {timeout.seconds} s")


def resolve_runtime(device: str, precision: str) -> Runtime:
    """The runtime for the values of --device and --precision. OptionError if there is none."""
    found = resolve_device(device)
    return Runtime(found, resolve_precision(precision, found), rank(), world_size())


def was_restarted() -> bool:
    """Whether torchrun has started this job again. All processes must call this.

    The count of restarts is right on one machine, and 0 on a machine that joined again.
    """
    return all_reduce_max(_torchrun_env("TORCHELASTIC_RESTART_COUNT", 0))[0] > 0


def may_restart() -> bool:
    """Whether torchrun starts this job again when it loses a process."""
    return _torchrun_env("TORCHELASTIC_MAX_RESTARTS", 0) > 0


def all_reduce_max(*values: int) -> tuple[int, ...]:
    """The largest of each value over the processes."""
    if world_size() == 1:
        return values
    numbers = torch.tensor(values, dtype=torch.int64)
    with raise_peer_errors():
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=_host_group(dist.group.WORLD))
    return tuple(numbers.tolist())


def barrier() -> None:
    """Wait until all processes have called this, for at most a day."""
    all_reduce_max(0)


def on_rank0_broadcast(work: Callable[[], ResultT]) -> ResultT:
    """The result of `work` on rank 0, in all processes: any object that pickles, tensors on CPU."""
    if world_size() == 1:
        return work()
    results: list[Any] = [None]
    if rank() == 0:
        with local_only():
            results = [work()]
    with raise_peer_errors():
        dist.broadcast_object_list(results, src=0, group=_host_group(dist.group.WORLD))
    return results[0]


def gather_objects(value: ResultT) -> list[ResultT]:
    """Each process's value, in order of rank, on rank 0; an empty list on the others.

    value: any object that pickles, with tensors on CPU.
    """
    gathered: list[Any] | None = [None] * world_size() if rank() == 0 else None
    with raise_peer_errors():
        dist.gather_object(value, gathered, dst=0, group=_host_group(dist.group.WORLD))
    return gathered or []


def local_rank0_first(work: Callable[[], ResultT]) -> ResultT:
    """Do the work on the first process of each machine, then on the others, which find it done."""
    if _torchrun_env("LOCAL_RANK", rank()) != 0:
        barrier()
        return work()
    result = work()
    barrier()
    return result


def run_on_rank0(work: Callable[[], None], *modules: nn.Module) -> None:
    """Do the work on rank 0 alone, and broadcast the state of these modules afterwards."""
    if rank() == 0:
        with local_only():
            work()
    barrier()
    broadcast_module(*modules)


@torch.no_grad()
def broadcast_module(*modules: nn.Module) -> None:
    """Copy rank 0's parameters and buffers to all processes."""
    if world_size() == 1:
        return
    for module in modules:
        for tensor in module.state_dict().values():
            values = tensor.contiguous()
            with raise_peer_errors():
                dist.broadcast(values, 0)
            tensor.copy_(values)


def seed_step(seed: int, step: int) -> None:
    """Seed this process's noise of a step from (seed, rank, step).

    A resumed job needs no state of generators then. With one process they stay as they are.
    """
    if world_size() > 1:
        torch.manual_seed(derive_seed(seed, rank(), step))


def _local_device(name: str) -> torch.device:
    """The device of this process, made the current one if it is a GPU."""
    if name.startswith("cuda:"):
        raise OptionError(
            f"--device {name}: each process takes the GPU of its local rank: give --device cuda"
        )
    local_rank = _torchrun_env("LOCAL_RANK", 0)
    if name in ("auto", "cuda") and torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise OptionError(
                f"there are {torch.cuda.device_count()} GPUs on this machine and more processes: "
                "give fewer to --nproc-per-node, or --device cpu"
            )
        torch.cuda.set_device(local_rank)
    device = resolve_device(name)
    if device.type not in ("cpu", "cuda"):
        raise OptionError(f"several processes cannot share work on {device}: give --device cpu")
    return device


@functools.lru_cache(maxsize=1)
def _host_group(default: dist.ProcessGroup | None) -> dist.ProcessGroup:
    """The gloo group of the ranks of a default process group, for objects on the host."""
    group = dist.new_group(backend="gloo", timeout=_HOST_TIMEOUT)
    assert isinstance(group, dist.ProcessGroup)  # every process is a member
    return group


def _torchrun_env(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
