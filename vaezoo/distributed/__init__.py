"""Training and evaluation by several processes: collectives, process groups, FSDP, batch norm."""

from vaezoo.distributed.collectives import (
    all_gather,
    all_reduce,
    full_tensor,
    is_sharded,
    local_chunk,
    local_only,
    raise_peer_errors,
    rank,
    world_size,
)

__all__ = [
    "all_gather",
    "all_reduce",
    "full_tensor",
    "is_sharded",
    "local_chunk",
    "local_only",
    "raise_peer_errors",
    "rank",
    "world_size",
]
