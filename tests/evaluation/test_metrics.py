"""Metrics as registered things: which are taken, what each needs, what may be ranked."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, MetricSpec, Options, TensorSplit, VaezooError
from vaezoo.cli.evaluate import best_of
from vaezoo.data.loader import BatchLoader
from vaezoo.errors import OptionError, UnknownNameError
from vaezoo.evaluation.accumulators import Accumulator
from vaezoo.evaluation.evaluate import (
    _describe,
    all_metrics,
    comparability,
    evaluate,
    select_metrics,
)
from vaezoo.evaluation.latents import latent_kls
from vaezoo.evaluation.metric import (
    EvalBatch,
    EvalContext,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.models.distributions import diagonal_normal
from vaezoo.models.likelihoods import BernoulliLikelihood, GaussianLikelihood
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import METRIC_REQUIRES


class Plain(BaseVAE):
    """q(z|x) = N(m x, s²) in each coordinate, for given m and s; what it decodes is z."""

    def __init__(self, slopes: list[float], scales: list[float]) -> None:
        super().__init__(Options(), DataSpec(shape=(len(slopes),), domain="real"))
        self.latent_shape = (len(slopes),)
        self.slopes, self.scales = torch.tensor(slopes), torch.tensor(scales)
        self.likelihood = GaussianLikelihood(
            DataSpec(shape=self.data.shape, domain="real"), 1.0, learned=False
        )
        self.encoded = 0

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        self.encoded += 1
        return diagonal_normal(x * self.slopes, self.scales.expand_as(x))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(z)


def setting(
    model: BaseVAE | None = None, tags: tuple[str, ...] = ("elbo", "importance"), **changes: Any
) -> EvalContext:
    model = model or Plain([1.0, 0.0], [0.5, 1.0])
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
    batches = BatchLoader(TensorSplit(x), batch_size=64, device=torch.device("cpu"))
    return EvalContext(model, frozenset(tags), batches, **changes)


def spec(name: str, **changes: Any) -> MetricSpec:
    """A spec of Count, which is given to it: a test's module has no name to import it by."""
    values = {"summary": "A test", "formula": "1", "direction": "higher", "group": "latent"}
    found = MetricSpec(name=name, target=f"{__name__}:Count", **{**values, **changes})
    object.__setattr__(found, "load", lambda: Count)
    return found


def test_nothing_is_downloaded_unless_it_is_allowed() -> None:
    assert setting().download is False


def test_each_stream_of_noise_and_each_seed_is_its_own() -> None:
    """And none is that of torch.manual_seed(seed) itself."""
    drawn = []
    for seed in (0, 1, 2):
        plain = float(torch.rand((), generator=torch.Generator().manual_seed(seed)))
        for stream in (0, 1, 2):
            with setting(seed=seed).noise(stream):
                drawn.append(float(torch.rand(())))
            assert drawn[-1] != plain
    assert len(set(drawn)) == 9


class TestChoosing:
    def test_by_name_group_and_all(self) -> None:
        assert [s.name for s in select_metrics(["ssim", "elbo", "elbo"])] == ["elbo", "ssim"]
        likelihood = {s.name for s in select_metrics(["likelihood"])}
        assert likelihood == {"elbo", "log_likelihood", "rate", "distortion", "bits_per_dim"}
        everything = {s.name for s in select_metrics(["all"])}
        assert everything == {s.name for s in registry().specs("metric")}
        assert select_metrics(["default"]) == [s for s in all_metrics() if s.default]
        assert {s.name for s in select_metrics(["default"])} < everything

    def test_mistakes_are_told(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'ssim'"):
            select_metrics(["sism"])
        with pytest.raises(OptionError, match="names no metric"):
            select_metrics([])

    def test_what_is_heavy_is_not_default(self) -> None:
        for found in select_metrics(["default"]):
            assert found.group not in ("samples", "factors")
            assert not found.extra


class TestNeeds:
    @pytest.mark.parametrize("found", registry().specs("metric"), ids=lambda s: s.name)
    def test_each_is_a_number_or_says_why_not(self, found: MetricSpec) -> None:
        """Of a model and data with as little as can be, and never a failure."""
        for tags in ((), ("elbo", "importance"), ("discrete", "deterministic")):
            number = evaluate(setting(tags=tags), [found]).metrics[found.name]
            assert (number.value is None) == (number.note != "" and number.value is None)
            if number.value is None:
                assert number.note
                assert "failed" not in number.note

    def test_reasons_follow_from_the_tags(self) -> None:
        no_tags, discrete = setting(tags=()), setting(tags=("discrete", "deterministic"))
        for found, where, need in (
            ("elbo", no_tags, "elbo"),
            ("log_likelihood", no_tags, "importance"),
            ("code_use", no_tags, "discrete"),
            ("active_units", discrete, "continuous"),
            ("collapsed_units", discrete, "density"),
            ("psnr", no_tags, "images"),
            ("mig", no_tags, "factors"),
        ):
            number = evaluate(where, select_metrics([found])).metrics[found]
            assert number.value is None
            assert number.note == METRIC_REQUIRES[need]


class TestOnePass:
    def test_metrics_share_what_they_see(self) -> None:
        """Encoded for the bound and once more to reconstruct, four batches each."""
        model = Plain([1.0, 0.0], [0.5, 1.0])
        evaluate(setting(model), select_metrics(["elbo", "rate", "distortion", "active_units"]))
        assert model.encoded == 4
        model = Plain([1.0, 0.0], [0.5, 1.0])
        evaluate(setting(model), select_metrics(["default", "mutual_information", "marginal_kl"]))
        assert model.encoded == 8

    def test_a_number_does_not_depend_on_its_company(self) -> None:
        alone = {
            name: evaluate(setting(importance_samples=3), select_metrics([name])).metrics[name]
            for name in ("elbo", "log_likelihood", "mutual_information", "mse")
        }
        together = evaluate(setting(importance_samples=3), select_metrics(["all"])).metrics
        for name, number in alone.items():
            assert number == together[name]

    def test_progress_is_told(self) -> None:
        heard: list[tuple[str, int, int]] = []
        evaluate(setting(on_progress=lambda *words: heard.append(words)), select_metrics(["elbo"]))
        assert heard == [("one pass", n, 200) for n in (64, 128, 192, 200)]


class TestLatents:
    def test_a_row_for_each(self) -> None:
        """The first follows its example; the second is the prior whatever the example is."""
        result = evaluate(setting(), select_metrics(["default"]))
        first, second = result.latents
        assert first["latent"] == 0
        assert first["active"]
        assert not first["collapsed"]
        assert second == {
            "latent": 1,
            "rate": 0.0,
            "mean_variance": 0.0,
            "active": False,
            "collapsed": True,
        }
        assert result.metrics["collapsed_units"].value == 1
        assert result.active_units == 1
        assert result.rate is not None
        assert first["rate"] + second["rate"] == pytest.approx(result.rate)

    def test_a_latent_is_active_by_the_variance_of_its_means(self) -> None:
        """0.0101 and 0.0099 around the threshold; both standard deviations are about 0.1."""
        x = torch.randn(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        x = ((x - x.mean(0)) / x.std(0, correction=0)).float()
        batches = BatchLoader(TensorSplit(x), batch_size=64, device=torch.device("cpu"))
        model = Plain([0.0101**0.5, 0.0099**0.5], [1.0, 1.0])
        tags = frozenset(("elbo", "importance"))
        result = evaluate(EvalContext(model, tags, batches), select_metrics(["default"]))
        assert result.active_units == 1
        assert [row["active"] for row in result.latents] == [True, False]
        variances = [row["mean_variance"] for row in result.latents]
        assert variances == pytest.approx([0.0101, 0.0099], rel=1e-4)

    def test_a_latent_that_speaks_of_a_few_examples_is_not_collapsed(self) -> None:
        """2 % of the examples are enough; 1 % are the δ of Lucas et al. (2019)."""
        for loud, collapsed in ((4, False), (1, True)):
            x = torch.zeros(200, 1)
            x[:loud] = 3.0
            batches = BatchLoader(TensorSplit(x), batch_size=64, device=torch.device("cpu"))
            tags = frozenset(("elbo", "importance"))
            result = evaluate(
                EvalContext(Plain([1.0], [1.0]), tags, batches), select_metrics(["default"])
            )
            assert result.latents[0]["collapsed"] is collapsed

    def test_what_has_diverged_is_no_number(self) -> None:
        result = evaluate(
            setting(Plain([float("nan"), 0.0], [0.5, 1.0])), select_metrics(["default"])
        )
        first, second = result.latents
        assert first["rate"] is None
        assert first["active"] is None
        assert second["rate"] == 0.0
        json.dumps(result.to_dict(), allow_nan=False)

    def test_kl_that_is_no_sum_has_no_rows(self) -> None:
        class Whole(torch.distributions.Distribution):
            pass

        prior = diagonal_normal(torch.zeros(2), torch.ones(2))
        assert latent_kls(Whole(validate_args=False), prior) is None
        kls = latent_kls(diagonal_normal(torch.ones(3, 2), torch.ones(3, 2)), prior)
        assert kls is not None
        assert torch.allclose(kls, torch.full((3, 2), 0.5))


def number(
    value: float | None, comparable: str = "same", direction: str = "higher"
) -> MetricResult:
    return MetricResult(value, direction=direction, comparable=comparable)


class TestRanking:
    def test_best(self) -> None:
        assert best_of([number(1), number(3), number(2)]) == {1}
        assert best_of([number(1), number(3, direction="lower"), number(2)]) == {1}
        assert best_of([number(n, direction="lower") for n in (1, 3, 2)]) == {0}
        assert best_of([number(3), number(1), number(3)]) == {0, 2}

    def test_none_where_they_do_not_compare(self) -> None:
        assert best_of([number(1), number(3, "other")]) == set()
        assert best_of([number(1, direction="neither"), number(3, direction="neither")]) == set()
        assert best_of([number(1), number(1)]) == set()
        assert best_of([number(None), number(None)]) == set()

    def test_what_is_missing_is_no_rival(self) -> None:
        assert best_of([number(None, "other"), number(1), number(2)]) == {2}

    def test_it_takes_another_to_be_best(self) -> None:
        assert best_of([number(None), number(1)]) == set()


def test_states_of_nothing_but_accumulators_are_shared_by_processes() -> None:
    """Each batch in one process; every other state needs all batches in one."""
    shared = set()
    for found in registry().specs("metric"):
        if registry().plugin(found).module != "vaezoo_metrics.plugin":
            continue
        state = found.load()(setting(importance_samples=3))
        held = [value for name, value in vars(state).items() if name != "context"]
        if any(isinstance(value, Accumulator) for value in held):
            alone = all(isinstance(value, (Accumulator, int, float, str)) for value in held)
            assert state.mergeable == alone, found.name
            shared.add(found.name)
    assert {"mse", "elbo", "rate", "distortion", "ssim", "psnr"} <= shared


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (MetricUnavailable("no labels"), (True, "no labels")),
        (VaezooError("two\nlines"), (False, "two lines")),
        (ValueError("a shape"), (False, "ValueError: a shape")),
    ],
)
def test_a_fault_is_not_taken_for_a_metric_that_does_not_apply(
    error: Exception, described: tuple[bool, str]
) -> None:
    assert _describe(error) == described


class TestComparable:
    def words(self, name: str, where: EvalContext, measured: MetricResult | None = None) -> str:
        return comparability(registry().get("metric", name), where, measured or MetricResult(1.0))

    def test_importance_samples_keep_numbers_apart(self) -> None:
        few, many = setting(importance_samples=5), setting(importance_samples=50)
        assert self.words("log_likelihood", few) != self.words("log_likelihood", many)
        assert self.words("elbo", few) == self.words("elbo", many)

    def test_splits_and_binarization_keep_numbers_apart(self) -> None:
        plain = setting()
        for other in (
            setting(split_name="train"),
            dataclasses.replace(
                plain,
                batches=BatchLoader(
                    plain.split, batch_size=64, device=torch.device("cpu"), binarize="threshold"
                ),
            ),
        ):
            assert self.words("mse", plain) != self.words("mse", other)

    def test_likelihoods_of_another_kind_keep_nats_apart(self) -> None:
        density, cross_entropy = Plain([1.0, 1.0], [1.0, 1.0]), Plain([1.0, 1.0], [1.0, 1.0])
        cross_entropy.likelihood = BernoulliLikelihood(cross_entropy.data)
        given_label = Plain([1.0, 1.0], [1.0, 1.0])
        given_label.conditional = True  # type: ignore[misc]
        words = {self.words("elbo", setting(m)) for m in (density, cross_entropy, given_label)}
        assert len(words) == 3
        assert len({self.words("mse", setting(m)) for m in (density, cross_entropy)}) == 1

    def test_log_probabilities_of_0_and_1_are_no_densities(self) -> None:
        binary, real = Plain([1.0, 1.0], [1.0, 1.0]), Plain([1.0, 1.0], [1.0, 1.0])
        binary.data = DataSpec(shape=(2,), domain="binary")
        binary.likelihood = BernoulliLikelihood(binary.data)
        assert "probability" in self.words("elbo", setting(binary))
        assert "density" in self.words("elbo", setting(real))

    def test_networks_keep_distances_apart(self) -> None:
        found = [
            MetricResult(1.0, network=name, examples=10) for name in ("inception", "classifier")
        ]
        first, second = (self.words("fid", setting(), measured) for measured in found)
        assert first != second
        assert "network inception" in first


class Count(MetricState):
    """The number of examples seen, and three metrics without a value."""

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.seen = 0

    def update(self, batch: EvalBatch) -> None:
        self.seen += len(batch)

    def count(self) -> MetricResult:
        return MetricResult(float(self.seen), note="a caution")

    def broken(self) -> MetricResult:
        raise ZeroDivisionError("by\nnothing")

    def declines(self) -> MetricResult:
        raise MetricUnavailable("there is none today")

    def endless(self) -> MetricResult:
        return MetricResult(float("inf"))


class TestOnesOwn:
    def test_a_metric_is_a_method_of_a_state(self) -> None:
        found = evaluate(setting(), [spec("count")]).metrics["count"]
        assert found.value == 200
        assert found.note == "a caution"

    def test_one_that_fails_costs_its_number(self) -> None:
        specs = [spec(name) for name in ("count", "broken", "declines", "endless")]
        found = evaluate(setting(), specs).metrics
        assert found["count"].value == 200
        assert found["broken"].note == "it failed: ZeroDivisionError: by nothing"
        assert found["declines"].note == "there is none today"
        assert found["endless"].value is None
        assert found["endless"].note == "it came out as inf"

    def test_where_all_fail_the_error_is_raised(self) -> None:
        with pytest.raises(ZeroDivisionError):
            evaluate(setting(), [spec("broken")])

    def test_a_target_that_is_no_metric(self) -> None:
        wrong = MetricSpec(
            name="wrong",
            target="vaezoo_vanilla.loss:ELBOLoss",
            summary="A loss",
            formula="1",
            direction="higher",
            group="latent",
        )
        with pytest.raises(VaezooError, match="is no MetricState"):
            evaluate(setting(), [wrong])
        with pytest.raises(VaezooError, match="has no method nameless"):
            evaluate(setting(), [spec("nameless")])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"group": "others"}, "group must be one of .* not 'others'"),
            (
                {"direction": "larger"},
                "one of higher, lower, neither, not 'larger'",
            ),
            ({"requires": ("gold",)}, "requires must be .*gold"),
            ({"comparable_keys": ("luck",)}, "comparable_keys must be .*luck"),
            ({"requires": "elbo"}, "requires must be a tuple of words"),
            ({"formula": "a\nb"}, "formula must be one line"),
        ],
    )
    def test_specs_are_checked(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(VaezooError, match=message):
            spec("count", **changes)


@pytest.fixture
def documented_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin in docs/metrics.md, as it is written there, for the length of a test."""
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    block = re.search(r"^```python (\S+)\n(.*?)^```$", page, flags=re.M | re.S)
    assert block is not None
    (tmp_path / block[1]).write_text(block[2], encoding="utf-8")
    known = registry()
    monkeypatch.setattr(known, "records", list(known.records))
    known.add(str(tmp_path / block[1]))
    yield
    monkeypatch.undo()
    known._index()


@pytest.mark.usefixtures("documented_metric")
def test_a_plugin_brings_a_metric() -> None:
    assert registry().get("metric", "posterior_variance").group == "latent"
    assert "posterior_variance" in {s.name for s in select_metrics(["latent"])}
    model = Plain([1.0, 0.0], [0.5, 1.0])
    found = evaluate(setting(model), select_metrics(["posterior_variance"])).metrics
    assert found["posterior_variance"].value == pytest.approx((0.25 + 1) / 2)
    assert found["posterior_variance"].uncertainty == pytest.approx(0.0)
    none = evaluate(setting(tags=("deterministic",)), select_metrics(["posterior_variance"]))
    assert none.metrics["posterior_variance"].note == METRIC_REQUIRES["density"]
