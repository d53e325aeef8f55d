"""The TensorBoard logger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vaezoo import BaseLogger
from vaezoo.io import require_extra

FOLDER = "tensorboard"
"""In the run folder. `tensorboard --logdir runs` shows all runs."""


class TensorBoardLogger(BaseLogger):
    """Writes scalars named `elbo/train` and `elbo/validation`, so that one chart shows both.

    A resumed run hides the points after its checkpoint. If it had no event files, it also writes
    the lines from before.
    """

    @classmethod
    def check(cls) -> None:
        require_extra("tensorboard", "--log tensorboard", "tensorboard")

    def start(self, past: Sequence[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imports all of TensorBoard

        path = self.folder / FOLDER
        is_new = not any(path.glob("events.out.*"))
        last = max((line["step"] for line in past), default=0)
        # Lines after the checkpoint were removed from metrics.jsonl: remove their points too.
        self.writer = SummaryWriter(str(path), purge_step=None if is_new else last + 1)
        if is_new:
            for line in past:
                self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        for tag, value in scalars(line):
            self.writer.add_scalar(tag, value, line["step"])
        if line["kind"] == "validation":
            self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The tag and value of each number in a line; None has no point."""
    named: dict[str, Any] = {
        **line["terms"],
        **{key: line.get(key) for key in ("lr", "images_per_second", "bits_per_dim")},
    }
    for name, value in named.items():
        if value is not None:
            yield f"{name}/{line['kind']}", float(value)
