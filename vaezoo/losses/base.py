"""BaseLoss, the interface of all losses; phases of a training step; evaluation of a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.data.base import Batch
from vaezoo.data.loader import BatchLoader
from vaezoo.data.spec import DataSpec
from vaezoo.distributed import all_reduce, local_only
from vaezoo.models.base import BaseVAE
from vaezoo.options import Options
from vaezoo.runtime import report_progress
from vaezoo.runtime.device import evaluation_mode, seeded


class StepContext(NamedTuple):
    """What a loss gets besides the model and the batch.

    global_step: the number of training steps before this one, a 0-dim int64 tensor on the device;
        never read back to the host. In evaluation it keeps the last value of training.
    total_steps: the number of steps of the whole training.
    num_examples: the number of training examples.
    """

    global_step: Tensor
    total_steps: int
    num_examples: int


class LossOutput(NamedTuple):
    """The scalar to minimise, 0-dim, and its named terms: [batch] or 0-dim, in nats per example."""

    loss: Tensor
    terms: Mapping[str, Tensor]


LossFunction = Callable[[BaseVAE, Batch, StepContext], LossOutput]


@dataclass(frozen=True)
class Phase:
    """One update of a training step: these parameters, by the gradient of this loss.

    Only the phase's own parameters get a gradient, whatever the loss depends on, and of these only
    the ones that require one. lr_scale: multiplies the run's learning rate. betas: of Adam and its
    variants, of which SGD takes the first as its momentum; None for those of the run.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss_fn: LossFunction
    lr_scale: float = 1.0
    betas: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", [p for p in self.parameters if p.requires_grad])


class BaseLoss(nn.Module, ABC):
    """A loss: what training minimises, built from its options, the model and the data.

    It may own networks (a discriminator), which are trained in phases of their own.
    """

    single_process_reason: ClassVar[str] = ""
    """Why its training steps cannot be split over several processes; "" if they can."""
    no_shard_reason: str = ""
    """Why the layers that it uses cannot be sharded over processes (--shard); "" if they can."""
    no_accumulate_reason: str = ""
    """Why its gradient is not the mean over parts of the batch (--accumulate); "" if it is."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of vaezoo.testing that fail for a good reason: name -> the reason."""

    def __init__(self, options: Options, model: BaseVAE, data: DataSpec) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The loss of the main phase, also the one that evaluation reports."""

    def phases(self, model: BaseVAE) -> list[Phase]:
        """The updates of a training step, in order; by default one of all parameters."""
        return [Phase("train", [*model.parameters(), *self.parameters()], self)]


def loss_of(model: BaseVAE) -> BaseLoss:
    """The loss at `model.loss`. ValueError if there is none, as in a model built by hand."""
    if not isinstance(model.loss, BaseLoss):
        raise ValueError(f"{type(model).__name__} has no loss: build it with create_model")
    return model.loss


def evaluate_loss(
    model: BaseVAE,
    loss: BaseLoss,
    batches: BatchLoader,
    context: StepContext,
    seed: int,
    together: bool = False,
) -> dict[str, float]:
    """The loss and its terms in nats per example, each example counted once.

    The random numbers of a batch follow from `seed` and the number of the batch, so that the
    result does not depend on the number of processes. Random generators and the training mode are
    restored. together: every process computes all batches, as a sharded model needs; each batch
    still counts in one process only.
    """
    sums: dict[str, Tensor] = {}
    with evaluation_mode(model, loss), torch.no_grad():
        for number, batch, counts in batches.sharded(all_to_all=together):
            done = number * batches.batch_size
            report_progress("validation, example", done, len(batches.split))
            with seeded(seed + number, batches.device), local_only():
                output = loss(model, batch, context)
            for name, value in {"loss": output.loss, **output.terms}.items():
                # A 0-dim term counts for each example of the batch.
                total = value.float().mean() * len(batch.x)
                total = total if counts else torch.zeros_like(total)
                sums[name] = sums[name] + total if name in sums else total
    means = all_reduce(torch.stack(list(sums.values()))) / len(batches.split)
    return dict(zip(sums, means.tolist(), strict=True))
