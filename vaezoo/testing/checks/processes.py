"""Two processes with half a batch each do what one process does with the whole."""

from __future__ import annotations

from vaezoo.plugins.registry import registry
from vaezoo.testing.check import CheckFailed, CheckSkipped, check
from vaezoo.testing.model_with_loss import ModelWithLoss
from vaezoo.testing.shard import compare


@check(
    "leave gradients to the trainer; what looks at the batch as a whole goes by "
    "vaezoo.distributed (gather, share, total), asked for when it is needed",
    slow=True,
)
def processes(pair: ModelWithLoss) -> None:
    """Two processes with half a batch each find the gradients of one with the whole"""
    for spec in (pair.model_spec, pair.loss_spec):
        if spec not in registry().specs(spec.kind):
            raise CheckSkipped("another process can only be told of what has a registered name")
    why_not = pair.model_class.single_process_reason or pair.loss_class.single_process_reason
    if why_not:
        raise CheckSkipped(f"it is trained by one process only: {why_not}")
    (different,) = compare([pair])
    if different:
        raise CheckFailed(f"{different} in two processes")
