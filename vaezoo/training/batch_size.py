"""Whether a batch size can be had, shared by the processes, and learned from."""

from __future__ import annotations

from vaezoo.distributed import world_size
from vaezoo.errors import OptionError
from vaezoo.models.base import BaseVAE


def check_batch_size(batch_size: int, examples: int, model: BaseVAE) -> None:
    """OptionError unless a batch of this size can be had and shared, and the model can learn."""
    if batch_size > examples:
        raise OptionError(
            f"--batch-size {batch_size} is larger than the {examples:,} training examples: "
            f"give --batch-size {examples} or less"
        )
    if batch_size < model.min_batch_size:
        raise OptionError(
            f"--batch-size {batch_size} is too small for this model: "
            f"give --batch-size {model.min_batch_size} or more"
        )
    count = world_size()
    if batch_size % count:
        raise OptionError(
            f"--batch-size {batch_size} cannot be shared by {count} processes: "
            f"give a multiple of {count}"
        )
    if batch_size // count < model.min_batch_size:
        raise OptionError(
            f"--batch-size {batch_size} leaves {batch_size // count} to each of {count} processes, "
            f"too few for this model: give --batch-size {count * model.min_batch_size} or more"
        )
