"""Process groups of torchrun jobs: setup, objects and tensors between ranks."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from vaezoo.distributed import local_only, raise_peer_errors, rank, world_size
from vaezoo.errors import OptionError, ProcessLostError
from vaezoo.runtime.device import resolve_device
from vaezoo.runtime.seed import derive_seed

ResultT = TypeVar("ResultT")

_TIMEOUT = timedelta(seconds=30)
"""How long a step may wait for a process that is silent; one that is gone is noticed at once."""
_PATIENCE = timedelta(days=1)

_talk: tuple[dist.ProcessGroup, dist.ProcessGroup] | None = None
"""The group that all this is for, and the one on the host."""


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """The processes that torchrun started are a group inside; nothing happens where it did not.

    device: as in --device. Each process takes the GPU of its number on its machine. OptionError
    where that cannot be; ProcessLostError where the others do not come.
    """
    count = _told_by_torchrun("WORLD_SIZE", 1)
    if count == 1 or not dist.is_available() or dist.is_initialized():
        yield
        return
    from vaezoo.distributed.launch import (
        rendezvous_per_restart,  # a torch without processes has no stores
    )

    chosen = _own_device(device)
    with raise_peer_errors():
        store, rank, count = rendezvous_per_restart(_TIMEOUT)
        dist.init_process_group(
            "nccl" if chosen.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=_TIMEOUT,
            device_id=chosen if chosen.type == "cuda" else None,
        )
        _host_group()
    yield
    # Not when something was raised: the others must see that this process is gone.
    dist.destroy_process_group()


def was_restarted() -> bool:
    """Whether torchrun has started this job again. All processes must ask.

    On one machine it counts how often; on another that only joined again, it does not.
    """
    return all_reduce_max(_told_by_torchrun("TORCHELASTIC_RESTART_COUNT", 0))[0] > 0


def may_restart() -> bool:
    """Whether torchrun starts this job again if a process of it is lost."""
    return _told_by_torchrun("TORCHELASTIC_MAX_RESTARTS", 0) > 0


def all_reduce_max(*values: int) -> tuple[int, ...]:
    """The largest of each over the processes."""
    if world_size() == 1:
        return values
    numbers = torch.tensor(values, dtype=torch.int64)
    with raise_peer_errors():
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=_host_group())
    return tuple(numbers.tolist())


def barrier() -> None:
    """Until all processes are here, however long that takes."""
    all_reduce_max(0)


def on_rank0_broadcast(work: Callable[[], ResultT]) -> ResultT:
    """What `work` gives in the first process, in all of them: anything that JSON holds."""
    if world_size() == 1:
        return work()
    text = b""
    if rank() == 0:
        with local_only():
            text = json.dumps(work()).encode()
    result: ResultT = json.loads(bytes(_hand_out(_as_tensor(text)).tolist()))
    return result


def broadcast_tensors(
    tensors: Mapping[str, Mapping[str, Tensor]] | None,
) -> dict[str, dict[str, Tensor]]:
    """The first process's tensors in all of them, on the host; the others give None."""
    text = b""
    if tensors is not None:
        flat = {
            json.dumps([file, name]): tensor.detach().cpu().contiguous()
            for file, part in tensors.items()
            for name, tensor in part.items()
        }
        text = safetensors.torch.save(flat)
    received = _hand_out(_as_tensor(text)).numpy().tobytes()
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in safetensors.torch.load(received).items():
        file, name = json.loads(key)
        found.setdefault(file, {})[name] = tensor
    return found


def gather_objects(said: object) -> list[Any]:
    """What each process says, anything that JSON holds, in the first; nothing in the others."""
    return [json.loads(text) for text in _collect(json.dumps(said).encode())]


def gather_tensors(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Each process's tensors, on the host, in the first; nothing in the others."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return [safetensors.torch.load(part) for part in _collect(safetensors.torch.save(flat))]


def local_rank0_first(work: Callable[[], ResultT]) -> ResultT:
    """Done by the first process of each machine, and then by the others: they find it done."""
    if world_size() == 1:
        return work()
    first_here = _told_by_torchrun("LOCAL_RANK", rank()) == 0
    if first_here:
        result = work()
        barrier()
    else:
        barrier()
        result = work()
    return result


def run_on_rank0(work: Callable[[], None], *modules: nn.Module) -> None:
    """The first process does it, by itself; the others get what it leaves in these modules."""
    if rank() == 0:
        with local_only():
            work()
    barrier()
    broadcast_module(*modules)


@torch.no_grad()
def broadcast_module(*modules: nn.Module) -> None:
    """Give the first process's parameters and buffers to all."""
    if world_size() == 1:
        return
    for module in modules:
        for tensor in module.state_dict().values():
            values = tensor.contiguous()
            with raise_peer_errors():
                dist.broadcast(values, 0)
            tensor.copy_(values)


def seed_step(seed: int, step: int) -> None:
    """Let this process's noise in a step follow from (seed, its number, step) alone.

    So processes draw differently, and need no state of generators to go on. With one process the
    generators go on as they are.
    """
    if world_size() > 1:
        torch.manual_seed(derive_seed(seed, rank(), step))


def _own_device(name: str) -> torch.device:
    """The device of this process, made the current one where it is a GPU."""
    number = _told_by_torchrun("LOCAL_RANK", 0)
    if name.startswith("cuda:"):
        raise OptionError(
            f"--device {name}: of several processes each takes the GPU of its number: "
            "give --device cuda"
        )
    if name in ("auto", "cuda") and torch.cuda.is_available():
        if number >= torch.cuda.device_count():
            raise OptionError(
                f"there are {torch.cuda.device_count()} GPUs here and more processes: "
                "give fewer to --nproc-per-node, or --device cpu"
            )
        torch.cuda.set_device(number)
    device = resolve_device(name)
    if device.type not in ("cpu", "cuda"):
        raise OptionError(f"several processes cannot share work on {device}: give --device cpu")
    return device


def _host_group() -> dist.ProcessGroup:
    """Of the group that there is now; made when it is first asked for, by all processes."""
    global _talk
    whole = dist.group.WORLD
    assert whole is not None
    if _talk is None or _talk[0] is not whole:
        group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        assert isinstance(group, dist.ProcessGroup)  # of which every process is a member
        _talk = (whole, group)
    return _talk[1]


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)


def _hand_out(content: Tensor) -> Tensor:
    """The first process's bytes."""
    length = torch.tensor([len(content)])
    with raise_peer_errors():
        dist.broadcast(length, 0, group=_host_group())
        if rank() > 0:
            content = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(content, 0, group=_host_group())
    return content


def _collect(content: bytes) -> list[bytes]:
    """Each process's bytes, in their order, in the first; nothing in the others."""
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    with raise_peer_errors():
        dist.all_gather(lengths, torch.tensor([len(content)]), group=_host_group())
        sizes = [int(length) for length in lengths]
        mine = _as_tensor(content.ljust(max(sizes), b"\0"))  # a gather is of one size
        parts = [torch.empty_like(mine) for _ in sizes] if rank() == 0 else None
        dist.gather(mine, parts, 0, group=_host_group())
    return [bytes(p[:n].numpy()) for p, n in zip(parts or [], sizes, strict=False)]


def _told_by_torchrun(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else otherwise


_PAUSE = 0.02
"""Seconds between two looks at who is there."""


def rendezvous_per_restart(timeout: timedelta) -> tuple[Store, int, int]:
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
