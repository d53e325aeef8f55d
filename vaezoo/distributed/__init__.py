"""Training and evaluation by several processes: collectives, process groups, FSDP, batch norm."""

from vaezoo.distributed.collectives import (
    alone,
    gather,
    is_spread,
    place,
    processes,
    share,
    talking,
    total,
    whole,
)

__all__ = [
    "alone",
    "gather",
    "is_spread",
    "place",
    "processes",
    "share",
    "talking",
    "total",
    "whole",
]
