"""Adversarial losses: each phase updates only its own parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, Phase, StepContext
from vaezoo.cli.main import main
from vaezoo.errors import DataError, OptionError, VaezooError
from vaezoo.runs.run import Run
from vaezoo.runtime.device import Runtime
from vaezoo.training.options import TrainOptions
from vaezoo.training.train_step import TrainStep

CONTEXT = StepContext(torch.tensor(0), 10, 100)
NAMES = ("factor_vae", "aae", "vae_gan")
PHASES = [
    ("factor_vae", "train", ("model",)),
    ("factor_vae", "discriminator", ("discriminator",)),
    ("aae", "reconstruction", ("model",)),
    ("aae", "discriminator", ("discriminator",)),
    ("aae", "encoder", ("model.encoder",)),
    ("vae_gan", "encoder", ("model.encoder",)),
    ("vae_gan", "decoder", ("model.decoder", "model.likelihood")),
    ("vae_gan", "discriminator", ("discriminator",)),
]
"""Every phase of every loss here, and the modules that it updates."""

TINY = {**SMALL_JOB, "discriminator_hidden": (8, 8)}


def build(name: str, shape: tuple[int, ...] = (1, 12, 10), **options: Any) -> BaseVAE:
    torch.manual_seed(0)
    small = {"latent_dim": 5, "hidden": (4, 8), "discriminator_hidden": (6, 8)}
    return vaezoo.create_model(name, shape, **{**small, **options})


def images(n: int = 8, shape: tuple[int, ...] = (1, 12, 10)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))


def loss_of(model: BaseVAE) -> BaseLoss:
    assert model.loss is not None
    return model.loss


def phase_of(model: BaseVAE, name: str) -> Phase:
    return next(phase for phase in loss_of(model).phases(model) if phase.name == name)


def step(model: BaseVAE, phases: Sequence[Phase], x: Tensor, **how: Any) -> TrainStep:
    """A training step of these phases, as the trainer takes it."""
    updates = TrainStep(
        model,
        cast(BaseLoss, SimpleNamespace(phases=lambda model: phases)),
        TrainOptions(lr=how.get("lr", 0.01)),
        runtime=Runtime(torch.device("cpu"), how.get("precision", "fp32")),
        total_steps=10,
        note=print,
    )
    updates(Batch(x), CONTEXT, 0)
    return updates


def parts(model: BaseVAE) -> dict[str, nn.Module]:
    loss = loss_of(model)
    return {"model": model, "discriminator": loss.get_submodule("discriminator")}


def state(model: BaseVAE) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": tensor.clone()
        for part, module in parts(model).items()
        for name, tensor in module.state_dict().items()
    }


class TestPhases:
    def test_the_list_of_phases_is_complete(self) -> None:
        models = {name: build(name) for name in NAMES}
        found = [(n, phase.name) for n, m in models.items() for phase in loss_of(m).phases(m)]
        assert found == [(name, phase) for name, phase, _ in PHASES]

    @pytest.mark.parametrize(("name", "phase", "own"), PHASES)
    def test_changes_only_its_own(self, name: str, phase: str, own: tuple[str, ...]) -> None:
        """Parameters, and buffers too: running statistics of other modules stay as they are."""
        model = build(name)
        before = state(model)
        step(model, [phase_of(model, phase)], images())
        changed = {key for key, tensor in state(model).items() if not tensor.equal(before[key])}
        assert changed == {key for key in before if key.startswith(own)}

    @pytest.mark.parametrize(("name", "phase", "own"), PHASES)
    def test_batch_norm_counts_one_pass_in_the_phase_that_trains_it(
        self, name: str, phase: str, own: tuple[str, ...]
    ) -> None:
        """Reconstructions and prior samples are decoded in one forward pass."""
        model = build(name)
        step(model, [phase_of(model, phase)], images())
        for key, tensor in state(model).items():
            if key.endswith("num_batches_tracked"):
                assert tensor.item() == (1 if key.startswith(own) else 0), key

    @pytest.mark.parametrize("name", NAMES)
    def test_parameters_are_all_of_the_model_and_of_the_discriminator(self, name: str) -> None:
        model = build(name)
        trained = {id(p) for phase in loss_of(model).phases(model) for p in phase.parameters}
        assert trained == {id(p) for part in parts(model).values() for p in part.parameters()}

    @pytest.mark.parametrize("name", NAMES)
    def test_frozen_parameters_are_in_no_phase(self, name: str) -> None:
        model = build(name)
        frozen = model.get_parameter("decoder.0.weight").requires_grad_(False)
        phases = loss_of(model).phases(model)
        assert not any(p is frozen for phase in phases for p in phase.parameters)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_discriminator_sees_detached_latents(self, name: str) -> None:
        """Even a backward pass through everything fills no gradient but the discriminator's."""
        model = build(name)
        phase_of(model, "discriminator").loss_fn(model, Batch(images()), CONTEXT).loss.backward()
        assert all(parameter.grad is None for parameter in model.parameters())
        discriminator = parts(model)["discriminator"]
        assert all(parameter.grad is not None for parameter in discriminator.parameters())

    @pytest.mark.parametrize("name", NAMES)
    def test_the_discriminators_phase_samples_new_latents(self, name: str) -> None:
        model = build(name)
        loss_fn = phase_of(model, "discriminator").loss_fn
        values = [loss_fn(model, Batch(images()), CONTEXT).loss for _ in range(2)]
        assert not values[0].equal(values[1])

    @pytest.mark.parametrize("name", NAMES)
    def test_a_step_leaves_no_gradient_behind(self, name: str) -> None:
        model = build(name)
        step(model, loss_of(model).phases(model), images())
        for part in parts(model).values():
            assert all(parameter.grad is None for parameter in part.parameters())

    @pytest.mark.parametrize("name", NAMES)
    def test_the_discriminators_phase_improves_the_discriminator(self, name: str) -> None:
        model, x = build(name), images(32)
        phase = phase_of(model, "discriminator")
        values = []
        for _ in range(2):
            torch.manual_seed(5)
            values.append(phase.loss_fn(model, Batch(x), CONTEXT).loss.item())
            for _ in range(5):
                step(model, [phase], x, lr=1e-3)
        assert values[1] < values[0]

    @pytest.mark.parametrize(
        ("name", "phase"),
        [("factor_vae", "discriminator"), ("aae", "discriminator"), ("aae", "encoder")],
    )
    def test_settings_of_the_optimizer(self, name: str, phase: str) -> None:
        own = {"aae": {"encoder_lr_scale": 0.5}}.get(name, {})
        model = build(
            name,
            discriminator_lr_scale=0.5,
            discriminator_beta1=0.3,
            discriminator_beta2=0.8,
            **own,
        )
        found = phase_of(model, phase)
        assert (found.lr_scale, found.betas) == (0.5, (0.3, 0.8))
        assert loss_of(model).phases(model)[0].lr_scale == 1.0

    def test_vae_gan_scales_all_three_rates_and_the_discriminators_again(self) -> None:
        phases = loss_of(build("vae_gan", lr_scale=0.5, discriminator_lr_scale=0.25)).phases
        rates = [phase.lr_scale for phase in phases(build("vae_gan"))]
        assert rates == [0.5, 0.5, 0.125]

    @pytest.mark.parametrize("name", NAMES)
    def test_nothing_is_read_back_to_the_host(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def read(*args: Any) -> Any:
            raise AssertionError("a synchronisation with the host")

        model, x = build(name), images()
        phases = loss_of(model).phases(model)
        for word in ("item", "tolist", "__bool__", "__float__", "__int__"):
            monkeypatch.setattr(torch.Tensor, word, read)
        for phase in phases:
            phase.loss_fn(model, Batch(x), CONTEXT)

    @pytest.mark.parametrize("name", NAMES)
    def test_under_autocast_nats_are_summed_in_full_precision(self, name: str) -> None:
        model, x = build(name), images()
        with torch.autocast("cpu", torch.bfloat16):
            for phase in loss_of(model).phases(model):
                loss, terms = phase.loss_fn(model, Batch(x), CONTEXT)
                assert {loss.dtype, *(t.dtype for t in terms.values())} == {torch.float32}
        step(model, loss_of(model).phases(model), x, precision="bf16")


@pytest.mark.parametrize("loss", ["aae", "vae_gan"])
def test_a_model_without_a_decoder_module_is_refused(loss: str) -> None:
    model = build(loss)
    del model.decoder
    with pytest.raises(VaezooError, match="no parameters in `decoder` or `likelihood`"):
        loss_of(model).phases(model)


class TestEvaluation:
    @pytest.mark.parametrize("name", NAMES)
    def test_evaluation_changes_no_state(self, name: str) -> None:
        model = build(name)
        model.eval()
        loss_of(model).eval()
        before = state(model)
        with torch.no_grad():
            output = loss_of(model)(model, Batch(images(1)), CONTEXT)
        assert output.loss.isfinite()
        assert all(tensor.equal(before[key]) for key, tensor in state(model).items())

    @pytest.mark.parametrize("name", NAMES)
    def test_terms_are_the_same_at_any_batch_size(
        self, name: str, assert_terms_per_example: Callable[..., None]
    ) -> None:
        model, x = build(name).double(), images(12).double()
        loss = loss_of(model).double()
        model.eval()
        loss.eval()
        # No noise, so that an example's terms are its own.
        encode = model.encode
        model.encode = lambda x, y=None: _WithoutNoise(encode(x, y))
        names = list(loss(model, Batch(x), CONTEXT).terms)
        assert_terms_per_example(
            lambda part: loss(model, Batch(part), CONTEXT), x, names, (1, 5), rtol=0, atol=1e-8
        )

    @pytest.mark.parametrize("name", ["aae", "vae_gan"])
    def test_without_an_elbo_there_is_a_dash_and_the_reason(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        run = vaezoo.train(name, out=tmp_path / "r", **TINY)
        assert not {"elbo", "importance"} & set(run.config.components.model.tags)
        summary = json.loads((tmp_path / "r" / "summary.json").read_text())
        assert [summary[key] for key in ("elbo", "rate", "distortion")] == [None] * 3
        assert main(["evaluate", str(run.path), "--importance-samples", "2"]) == 0
        lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
        assert lines["elbo"].split(maxsplit=2)[1:] == ["-", "this model has no ELBO"]
        assert "-" in lines["log_likelihood"].split()

    def test_factor_vae_has_an_elbo(self, tmp_path: Path) -> None:
        run = vaezoo.train("factor_vae", out=tmp_path / "r", **TINY)
        assert run.summary["elbo"] == pytest.approx(
            -run.summary["rate"] - run.summary["distortion"], rel=1e-6
        )
        assert run.evaluate(importance_samples=5).log_likelihood is not None

    @pytest.mark.parametrize("name", NAMES)
    def test_a_run_is_loaded_and_a_stopped_one_resumed(
        self, tmp_path: Path, name: str, assert_resumes: Callable[..., Run]
    ) -> None:
        """To the same bits: discriminators, Adam's moments of every phase, and the noise."""
        whole = vaezoo.train(name, out=tmp_path / "whole", **TINY)
        assert vaezoo.load_run(whole.path).sample(3).equal(whole.sample(3))
        assert_resumes(whole, 4, **TINY)


class TestData:
    @pytest.mark.parametrize(
        "shape", [(1, 28, 28), (3, 32, 32), (1, 64, 64), (3, 9, 20), (1, 8, 8)]
    )
    @pytest.mark.parametrize("name", NAMES)
    def test_images(self, name: str, shape: tuple[int, ...]) -> None:
        model, x = build(name, shape), images(2, shape)
        step(model, loss_of(model).phases(model), x)
        assert model.sample(2).shape == (2, *shape)

    @pytest.mark.parametrize("network", ["resnet", "mlp", "gated_mlp"])
    @pytest.mark.parametrize("name", NAMES)
    def test_networks(self, name: str, network: str) -> None:
        model = build(name, network=network)
        before = state(model)
        step(model, loss_of(model).phases(model), images())
        moved = [key for key, tensor in state(model).items() if not tensor.equal(before[key])]
        assert any("encoder" in key for key in moved)
        assert any("decoder" in key for key in moved)

    @pytest.mark.parametrize("name", ["factor_vae", "aae"])
    def test_vectors(self, name: str) -> None:
        data = DataSpec(shape=(7,), domain="real")
        model = vaezoo.create_model(
            name, data, network="mlp", latent_dim=2, hidden=(6,), discriminator_hidden=(8,)
        )
        step(model, loss_of(model).phases(model), torch.randn(5, 7))

    @pytest.mark.parametrize(
        ("name", "loss", "said"),
        [
            ("vae_gan", None, "vae_gan takes images, and this data is vectors of 7 values"),
            ("vanilla", "vae_gan", "loss vae_gan compares images"),
        ],
    )
    def test_vae_gan_refuses_vectors(self, name: str, loss: str | None, said: str) -> None:
        data = DataSpec(shape=(7,), domain="real")
        with pytest.raises(DataError, match=said) as caught:
            vaezoo.create_model(name, data, loss=loss, network="mlp")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("loss", ["factor_vae", "vae_gan"])
    def test_losses_with_a_rate_refuse_a_delta_posterior(self, loss: str) -> None:
        with pytest.raises(OptionError, match=f"loss {loss} needs a model with"):
            vaezoo.create_model("autoencoder", (1, 16, 16), loss=loss)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_batch_of_one_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(OptionError, match="give batch_size 2 or more"):
            vaezoo.train(name, out=tmp_path / "r", **{**TINY, "batch_size": 1})


class _WithoutNoise:
    """A posterior whose samples are its mean."""

    def __init__(self, posterior: Any) -> None:
        self.posterior = posterior

    def rsample(self) -> Tensor:
        mean: Tensor = self.posterior.mean
        return mean

    def kl_divergence(self, prior: Any, z: Tensor) -> Tensor:
        return torch.distributions.kl_divergence(self.posterior, prior)
