"""Shared by the tests of plugins: runs that are stopped and resumed, terms at any batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import vaezoo
from small_jobs import StopAfter
from vaezoo.errors import RunStopped
from vaezoo.runs.run import Run
from vaezoo.runs.train import resume_run
from vaezoo.training.loggers import ProgressCallback


@pytest.fixture
def assert_resumes(tmp_path: Path) -> Callable[..., Run]:
    """A function that stops a run at a step and resumes it to the same bits as a whole run."""

    def check(whole: Run, steps: int, **job: Any) -> Run:
        """whole: the run of the same job. Returns the resumed run."""
        name, out = whole.config.components.model.name, tmp_path / "stopped"
        with pytest.raises(RunStopped):
            vaezoo.train(name, out=out, callback=StopAfter(steps), **job)
        resume_run(out, vaezoo.load_run(out).config, ProgressCallback())
        resumed = vaezoo.load_run(out)
        first, second = (load_file(run.path / "model.safetensors") for run in (whole, resumed))
        assert first.keys() == second.keys()
        assert all(first[key].equal(second[key]) for key in first)
        return resumed

    return check


@pytest.fixture(scope="session")
def assert_terms_per_example() -> Callable[..., None]:
    """A function that checks that an example's terms do not depend on the rest of its batch."""

    def check(
        loss: Callable[[Tensor], vaezoo.LossOutput],
        x: Tensor,
        names: Sequence[str],
        sizes: Sequence[int] = (1, 8),
        mean_loss: bool = True,
        **tolerance: float,
    ) -> None:
        """names: the terms that are [batch]; sizes: of the parts of x, which divide it.

        mean_loss: whether the loss is a mean over examples too.
        """
        whole = loss(x)
        for size in sizes:
            parts = [loss(part) for part in x.split(size)]
            for name in names:
                pieces = torch.cat([part.terms[name] for part in parts])
                assert torch.allclose(pieces, whole.terms[name], **tolerance), name
            if mean_loss and len(x) % size == 0:
                mean = torch.stack([part.loss for part in parts]).mean()
                assert torch.allclose(mean, whole.loss, **tolerance)

    return check
