"""The interface of an objective, and the phases in which it is minimised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.models.base import BaseVAE
from vaezoo.options import Options


class StepContext(NamedTuple):
    """What a loss may want to know besides the batch.

    global_step: how many training steps have been taken before this one, a 0-dim int64 tensor on
        the device; never read back to the host. In evaluation it stays where training left it.
    total_steps: how many there will be.
    num_examples: how many training examples there are.
    """

    global_step: Tensor
    total_steps: int
    num_examples: int


class LossOutput(NamedTuple):
    """The scalar to minimise, and its named terms: [batch] or 0-dim, in nats per example."""

    loss: Tensor
    terms: Mapping[str, Tensor]


LossFunction = Callable[[BaseVAE, Batch, StepContext], LossOutput]


@dataclass(frozen=True)
class Phase:
    """One update of a training step: these parameters, by the gradient of this objective.

    Only the phase's own parameters get a gradient, whatever its graph runs through.
    lr_factor multiplies the run's learning rate; betas are Adam's, None for those of the run.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss_fn: LossFunction
    lr_scale: float = 1.0
    betas: tuple[float, float] | None = None


class BaseLoss(nn.Module, ABC):
    """An objective. It may own networks (a critic), which are then trained by phases of their own.

    Built from its typed options, and from the model and data that it will be used with.
    """

    single_process_reason: ClassVar[str] = ""
    """Why several processes cannot share its training steps, where they cannot."""
    no_shard_reason: str = ""
    """Why no layer that it goes through can be spread over processes (--shard), if none can."""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of vaezoo.testing that it does not pass: name -> why that is as it should be."""

    def __init__(self, options: Options, model: BaseVAE, data: DataSpec) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The objective of the main phase."""

    def phases(self, model: BaseVAE) -> list[Phase]:
        """The updates of a step, in order: one of everything, unless the loss says otherwise."""
        parameters = [*model.parameters(), *self.parameters()]
        return [Phase("train", [p for p in parameters if p.requires_grad], self)]
