"""Tests of the capacity loss: C rises in training, reaches its end, is constant in evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import vaezoo
from small_jobs import SMALL_JOB
from small_models import fit, images, run_loss, small_model
from vaezoo import StepContext
from vaezoo_objectives.capacity import CapacityLoss

model = partial(small_model, "capacity")
run = partial(run_loss, total=100, examples=1000)


class TestSchedule:
    def capacities(self, total: int, **options: float) -> list[float]:
        loss = model(**options).loss
        assert isinstance(loss, CapacityLoss)
        steps = (StepContext(torch.tensor(step), total, 1000) for step in range(total))
        return [loss.capacity(context).item() for context in steps]

    def test_rises_linearly_and_stays(self) -> None:
        values = self.capacities(10, capacity=20.0, rise=0.5)
        assert values == pytest.approx([4.0, 8.0, 12.0, 16.0, *[20.0] * 6])

    @pytest.mark.parametrize(("rise", "total"), [(0.5, 7), (1.0, 49), (0.07, 1000), (0.3, 100)])
    def test_comes_to_its_end_exactly(self, rise: float, total: int) -> None:
        values = self.capacities(total, capacity=25.0, rise=rise)
        assert values[-1] == 25.0
        assert values == sorted(values)
        assert 0 < values[0] < 25.0

    def test_no_rise_is_all_of_it_from_the_start(self) -> None:
        assert self.capacities(5, capacity=25.0, rise=0.0) == [25.0] * 5

    def test_moves_in_a_real_run_and_not_in_its_evaluation(self, tmp_path: Path) -> None:
        """6 steps in an epoch: validation after 6 and 12 steps does not count as a step."""
        job = {**SMALL_JOB, "network": "mlp", "hidden": (8,), "latent_dim": 2, "epochs": 2}
        job |= {"log_every": 1, "capacity": 12.0, "rise": 1.0}
        run = vaezoo.train("capacity", out=tmp_path / "run", **job)
        lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        training = [line["terms"]["capacity"] for line in lines if line["kind"] == "train"]
        assert training == pytest.approx([float(step) for step in range(1, 13)])
        held_out = [line["terms"]["capacity"] for line in lines if line["kind"] == "validation"]
        assert held_out == pytest.approx([7.0, 12.0])  # the step about to be taken; the end

    def test_evaluation_leaves_it_where_it_is(self) -> None:
        vae, x = model(), images()
        at_work = run(vae, x, step=9).loss
        vae.eval()
        assert vae.loss is not None
        vae.loss.eval()
        with torch.no_grad():
            assert all(run(vae, x, step=9).loss.equal(at_work) for _ in range(3))


class TestObjective:
    @pytest.mark.parametrize("capacity", [0.0, 0.5, 50.0])
    def test_is_equation_8(self, capacity: float) -> None:
        """On both sides of the capacity."""
        objective, terms = run(model(capacity=capacity, gamma=30.0, rise=0.0), images())
        gap = abs(float(terms["rate"].mean()) - capacity)
        expected = float(terms["distortion"].mean()) + 30.0 * gap
        assert float(objective) == pytest.approx(expected, abs=1e-9)
        assert gap > 0.1

    @pytest.mark.parametrize(("capacity", "sign"), [(0.0, 1.0), (50.0, -1.0)])
    def test_rate_is_pushed_towards_the_capacity(self, capacity: float, sign: float) -> None:
        vae = model(capacity=capacity, gamma=1000.0, rise=0.0)
        encoder = list(vae.encoder.parameters())
        objective, terms = run(vae, images())
        ours = torch.autograd.grad(objective, encoder, retain_graph=True)
        distortion = torch.autograd.grad(terms["distortion"].mean(), encoder, retain_graph=True)
        rate = torch.autograd.grad(terms["rate"].mean(), encoder)
        for mine, d, r in zip(ours, distortion, rate, strict=True):
            assert torch.allclose(mine, d + sign * 1000.0 * r, rtol=1e-9, atol=1e-9)

    def test_rate_arrives(self) -> None:
        """After 300 steps the rate is the capacity, within a tenth."""
        vae = model(capacity=4.0, gamma=100.0, rise=0.5).float()
        x = images(64).float()
        rates = [terms["rate"].mean() for terms in fit(vae, x, 300, 0.003)]
        assert torch.stack(rates[-50:]).mean().item() == pytest.approx(4.0, rel=0.1)
        assert torch.stack(rates[50:60]).mean() < 2.5

    def test_terms_of_examples_do_not_know_the_batch(
        self, assert_terms_per_example: Callable[..., None]
    ) -> None:
        vae, x = model(logvar_range=(-60.0, -59.0)), images(64)
        names = ("elbo", "rate", "distortion")
        loss = partial(run, vae)
        assert_terms_per_example(loss, x, names, mean_loss=False, rtol=0, atol=1e-6)
