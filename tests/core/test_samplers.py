"""Samplers that are fitted to a finished run: what they change, and their files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

import vaezoo
from commands import refused
from small_jobs import SMALL_JOB
from vaezoo import LatentSpec, Options, Sampler
from vaezoo.cli.main import main
from vaezoo.errors import OptionError, RunError
from vaezoo.models.distributions import diagonal_normal, kl_divergence
from vaezoo.plugins.registry import registry
from vaezoo.runs.run import Run
from vaezoo.runtime.device import seeded

JOB = {**SMALL_JOB, "test": 40, "latent_dim": 3}


class ClassMeansOptions(Options):
    shift: float = 0.0
    width: int = 1


class ClassMeans(Sampler):
    """A narrow Gaussian around the mean of each class; around the mean of all without classes."""

    options: ClassMeansOptions
    conditional = True
    has_density = False
    sampling_options = ("shift",)

    def __init__(self, options: ClassMeansOptions, latent: LatentSpec) -> None:
        super().__init__(options, latent)
        self.means: Tensor
        self.register_buffer("means", torch.zeros(latent.num_classes + 1, *latent.shape))

    @property
    def is_fitted(self) -> bool:
        return bool(self.means.any())

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        assert y is not None
        self.means[-1] = latents.mean(0)
        for number in range(len(self.means) - 1):
            self.means[number] = latents[y == number].mean(0)

    def distribution(self, y: Tensor | None = None) -> Distribution:
        means = self.means[-1] if y is None else self.means[y.to(self.means.device)]
        means = means + self.options.shift
        return diagonal_normal(means, torch.full_like(means, 1e-4))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samplers") / "run"
    vaezoo.train("vanilla", out=path, **JOB)
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained, tmp_path / "run")
    return vaezoo.load_run(tmp_path / "run")


@pytest.fixture
def class_means() -> str:
    return registry().add_class(ClassMeans).name


def posterior_samples(run: Run) -> Tensor:
    """Those that `gaussian` is fitted to: of the training split, with the seed 0."""
    model, split = run.model, run.splits.train
    x, _ = split.get_batch(torch.arange(len(split)))
    with seeded(0, run.device), torch.no_grad():
        return torch.cat([model.encode(part / 255.0).rsample() for part in x.split(256)])


class TestFitting:
    def test_fits_the_latents_of_the_training_split(self, run: Run) -> None:
        z = posterior_samples(run)
        prior = run.fit_sampler("gaussian", seed=0).model.sampling_prior()
        assert isinstance(prior, torch.distributions.MixtureSameFamily)
        torch.testing.assert_close(prior.mean, z.mean(0))
        torch.testing.assert_close(
            prior.component_distribution.covariance_matrix[0],
            torch.cov(z.T, correction=0),
            rtol=1e-3,
            atol=1e-5,
        )

    def test_changes_nothing_else(self, run: Run) -> None:
        before = {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()}
        own = run.sample(4)
        fitted = run.fit_sampler("gaussian")
        assert {p.name: p.read_bytes() for p in run.path.iterdir() if p.is_file()} == before
        assert run.sample(4).equal(own)
        assert not fitted.sample(4).equal(own)
        for name, tensor in run.model.state_dict().items():
            assert fitted.model.state_dict()[name].equal(tensor)

    def test_is_kept_and_read_again(self, run: Run) -> None:
        fitted = run.fit_sampler("gaussian_mixture", components=2, seed=3)
        assert run.samplers == ["gaussian_mixture"]
        again = vaezoo.load_run(run.path, sampler="gaussian_mixture")
        assert again.sample(5).equal(fitted.sample(5))
        assert again.sampler_record["options"] == {"components": 2}
        assert again.sampler_record["seed"] == 3
        assert "sampler gaussian_mixture" in repr(again)
        assert again.evaluate(metrics="rate") == fitted.evaluate(metrics="rate")

    def test_the_rate_is_to_the_new_prior(self, run: Run) -> None:
        fitted = run.fit_sampler("gaussian")
        rate = fitted.evaluate(metrics="rate").rate
        assert rate is not None
        z, prior = posterior_samples(run), fitted.model.sampling_prior()
        own = run.evaluate(metrics="rate").rate
        assert own is not None
        # Of all Gaussians, the fitted one is nearest to the latents.
        gain = prior.log_prob(z).mean() - run.model.prior().log_prob(z).mean()
        assert gain > 0
        assert own - rate == pytest.approx(float(gain), abs=0.3)

    def test_none_is_the_prior_of_the_model(self, run: Run) -> None:
        run.fit_sampler("gaussian")
        assert run.with_sampler("none").sample(4).equal(run.sample(4))

    def test_an_existing_one_is_kept(self, run: Run) -> None:
        run.fit_sampler("gaussian", seed=1)
        with pytest.raises(RunError, match="has a sampler gaussian already"):
            run.fit_sampler("gaussian", seed=2)
        assert run.with_sampler("gaussian").sampler_record["seed"] == 1
        assert run.fit_sampler("gaussian", seed=2, overwrite=True).sampler_record["seed"] == 2

    def test_the_seed_determines_it(self, run: Run) -> None:
        """Also the weights that it starts from, whatever was drawn before."""
        samples = []
        for seed in (1, 1, 2):
            torch.rand(1)
            options = {"steps": 2, "width": 8}
            fitted = run.fit_sampler("flow_matching", seed=seed, overwrite=True, **options)
            samples.append(fitted.sample(3))
        assert samples[0].equal(samples[1])
        assert not samples[0].equal(samples[2])


class TestClasses:
    def test_samples_are_of_the_class(self, run: Run, class_means: str) -> None:
        fitted = run.fit_sampler(class_means)
        means = fitted.model.sampler.means  # type: ignore[union-attr]
        assert (means[0] - means[1]).abs().max() > 1e-3
        for number, name in enumerate(run.data_spec.class_names[:2]):
            with torch.no_grad():
                expected = fitted.model.decode(means[number][None]).mean
            for label in (number, name):
                found = fitted.sample(2, label=label)
                torch.testing.assert_close(found, expected.expand_as(found), atol=1e-3, rtol=0)

    def test_classes_alternate_unless_one_is_given(self, run: Run, class_means: str) -> None:
        fitted = run.fit_sampler(class_means)
        classes = len(run.data_spec.class_names)
        drawn = fitted.sample(2 * classes)
        torch.testing.assert_close(drawn[:classes], drawn[classes:], atol=1e-3, rtol=0)
        assert not torch.allclose(drawn[0], drawn[1], atol=1e-3)

    def test_a_plain_sampler_takes_none(self, run: Run) -> None:
        with pytest.raises(OptionError, match="not conditional"):
            run.fit_sampler("gaussian").sample(2, label=0)


class TestOptions:
    def test_sampling_options_change_after_fitting(self, run: Run, class_means: str) -> None:
        fitted = run.fit_sampler(class_means)
        moved = run.with_sampler(class_means, {"shift": 4.0})
        assert moved.model.sampler is not None
        difference = moved.model.sampling_prior().mean - fitted.model.sampling_prior().mean
        torch.testing.assert_close(difference, torch.full((3,), 4.0))

    def test_others_do_not(self, run: Run, class_means: str) -> None:
        run.fit_sampler(class_means)
        with pytest.raises(OptionError, match=r"width cannot be changed .* fitted: shift can"):
            run.with_sampler(class_means, {"width": 2})

    def test_without_a_density_there_is_no_elbo(self, run: Run, class_means: str) -> None:
        found = run.fit_sampler(class_means).evaluate(metrics=["elbo", "rate", "mse"])
        assert found.elbo is None
        assert found.rate is None
        assert found.notes["elbo"] == "its sampler has no density where the latents are"
        assert found.mse == run.evaluate(metrics="mse").mse


class TestOtherLatents:
    """Latents that are no plain vectors with a Gaussian posterior."""

    def test_a_hierarchy_is_rated_by_a_sample(self, tmp_path: Path) -> None:
        """Its own KL is to a prior with levels, which a sampler has not."""
        run = vaezoo.train("ladder_vae", out=tmp_path / "run", **SMALL_JOB).fit_sampler("gaussian")
        model, x = run.model, run.splits.test.get_batch(torch.arange(8))[0] / 255.0
        with seeded(0, run.device), torch.no_grad():
            posterior, prior = model.encode(x), model.sampling_prior()
            z = posterior.rsample()
            rate = kl_divergence(posterior, prior, z)
            torch.testing.assert_close(rate, posterior.log_prob(z) - prior.log_prob(z))
        found = run.evaluate(metrics=["elbo", "rate"])
        assert found.rate is not None
        assert found.rate > 0

    def test_on_a_sphere_samples_are_projected_and_densities_do_not_compare(
        self, tmp_path: Path
    ) -> None:
        run = vaezoo.train("vmf_vae", out=tmp_path / "run", **SMALL_JOB)
        fitted = run.fit_sampler("gaussian")
        decoded: list[Tensor] = []
        model = fitted.model
        decode = model.decode
        model.decode = lambda z, y=None: decoded.append(z) or decode(z, y)  # type: ignore
        fitted.sample(5)
        torch.testing.assert_close(torch.cat(decoded).norm(dim=1), torch.ones(5))
        found = fitted.evaluate(metrics=["elbo", "mse"])
        assert found.elbo is None
        assert found.mse is not None
        assert found.notes["elbo"] == "its sampler has no density where the latents are"
        assert run.evaluate(metrics="elbo").elbo is not None


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class TestDamage:
    def test_of_another_model(self, run: Run) -> None:
        run.fit_sampler("gaussian")
        weights = run.folder.weights.read_bytes()
        run.folder.weights.write_bytes(weights[:-4] + b"abcd")
        with pytest.raises(RunError, match=r"model.safetensors has changed since .* --overwrite"):
            vaezoo.load_run(run.path, sampler="gaussian")

    def test_of_its_weights(self, run: Run) -> None:
        run.fit_sampler("gaussian")
        file = run.folder.samplers / "gaussian.safetensors"
        file.write_bytes(file.read_bytes()[:-4] + b"abcd")
        with pytest.raises(RunError, match=r"gaussian.safetensors has changed"):
            vaezoo.load_run(run.path, sampler="gaussian")

    @pytest.mark.parametrize(
        "changes",
        [
            {"format": 2},
            {"name": "maf"},
            {"options": {"components": "many"}},
            {"options": {"nonsense": 1}},
            {"options": 3, "format": None},
        ],
    )
    def test_of_its_description(self, run: Run, changes: dict[str, Any]) -> None:
        run.fit_sampler("gaussian_mixture", components=2)
        edit(run.folder.samplers / "gaussian_mixture.json", **changes)
        with pytest.raises(RunError) as raised:
            vaezoo.load_run(run.path, sampler="gaussian_mixture")
        assert len(str(raised.value).splitlines()) == 1

    def test_options_that_do_not_fit_the_weights(self, run: Run) -> None:
        run.fit_sampler("gaussian_mixture", components=2)
        edit(run.folder.samplers / "gaussian_mixture.json", options={"components": 5})
        with pytest.raises(RunError, match="does not fit"):
            _ = vaezoo.load_run(run.path, sampler="gaussian_mixture").model


class TestCommands:
    def test_from_fitting_to_numbers(
        self,
        run: Run,
        tmp_path: Path,
        documented: Callable[[str], list[str]],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        path = str(run.path)
        line = ["fit", path, "--sampler", "gaussian_mixture", "--components", "2"]
        assert main(line) == 0
        assert "fitted gaussian_mixture to 80 latents" in capsys.readouterr().out
        assert main([*line, "--overwrite", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {*found} == {*documented("`vaezoo fit RUN --sampler NAME --json`")}
        picture = str(tmp_path / "s.png")
        assert main(["sample", path, "--sampler", "gaussian_mixture", "-o", picture]) == 0
        line = ["evaluate", path, "--sampler", "gaussian_mixture,none", "--metric", "rate"]
        capsys.readouterr()
        assert main([*line, "--json"]) == 0
        fitted, own = json.loads(capsys.readouterr().out)
        assert (fitted["sampler"], own["sampler"]) == ("gaussian_mixture", "none")
        assert fitted["rate"] == run.with_sampler("gaussian_mixture").evaluate(metrics="rate").rate
        assert own["rate"] == run.evaluate(metrics="rate").rate
        assert main(line) == 0
        assert "gaussian_mixture  none" in capsys.readouterr().out

    def test_the_report_shows_its_samples(
        self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run.fit_sampler("gaussian")
        own, other = tmp_path / "own.html", tmp_path / "other.html"
        assert main(["report", str(run.path), "-o", str(own)]) == 0
        assert main(["report", str(run.path), "-o", str(other), "--sampler", "gaussian"]) == 0
        assert "Samples of the sampler gaussian" in other.read_text()
        assert "Samples of the prior" in own.read_text()
        new = own.with_stem("new")
        line = refused(capsys, "report", run.path, "-o", new, "--sampler", "gaussian_mixture")
        assert "it has gaussian, none" in line

    def test_what_does_not_fit_is_refused(
        self, run: Run, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def line(*args: object) -> str:
            return refused(capsys, *args)

        assert "discrete latents" in line("fit", run.path, "--sampler", "autoregressive")
        assert "did you mean 'gaussian'" in line("fit", run.path, "--sampler", "gausian")
        assert "--sampler" in line("fit", run.path)
        assert "no option '--components'" in line(
            "fit", run.path, "--sampler", "gaussian", "--components", "2"
        )
        missing = line("sample", run.path, "--sampler", "gaussian", "-o", run.path / "x.png")
        assert f"vaezoo fit {run.path} --sampler gaussian fits it" in missing
        assert "name the sampler" in line("sample", run.path, "--set", "sampler.guidance=2")
        assert "its sampler only" in line(
            "sample", run.path, "--sampler", "none", "--set", "model.x=2"
        )
        assert not run.folder.samplers.exists()
