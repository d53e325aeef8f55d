"""The mutation test: what it changes, which tests it runs, and its list of equivalent mutants."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def mutation() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "mutation_test", HERE / ".ci" / "mutation_test.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_file_with_mathematics_has_tests(mutation: ModuleType) -> None:
    files = mutation.source_files()
    assert len(files) > 60
    for file in files:
        tests = [name for stage in mutation.tests_of(file)[:3] for (name,) in stage]
        assert tests, file
        assert all((HERE / name).is_file() for name in tests)


def test_annotations_and_kinds_of_parameters_are_no_behaviour(mutation: ModuleType) -> None:
    behaviour = mutation.behaviour
    assert behaviour("def f(x: int | None, *, y=1): ...") == behaviour("def f(x: int, /, y=1): ...")
    assert behaviour("x: int = 1") == behaviour("x: float = 1")
    assert behaviour("def f(x, *, y=1): ...") != behaviour("def f(x, *, y=2): ...")
    assert behaviour("a + b") != behaviour("a - b")


def test_a_sample_has_one_mutant_a_place_and_a_larger_one_holds_it(mutation: ModuleType) -> None:
    pytest.importorskip("cosmic_ray")
    mutation.SOURCES = ("vaezoo/evaluation/accumulators.py", "vaezoo/losses/elbo.py")
    small, large = (mutation.sample(count, seed=0) for count in (10, 30))
    assert large[:10] == small
    other = mutation.sample(10, seed=1)
    assert other != small
    for mutant, source in large:
        original = (HERE / mutant.file).read_text()
        changed = [
            (a, b)
            for a, b in zip(original.splitlines(), source.splitlines(), strict=False)
            if a != b
        ]
        assert changed
        assert mutant.before != mutant.after
        assert mutation.behaviour(source) != mutation.behaviour(original)
    assert len({mutant.id for mutant, _ in large}) == 30


def test_equivalent_mutants_are_of_lines_that_exist_and_have_a_reason() -> None:
    for entry in yaml.safe_load((HERE / ".ci" / "mutation_equivalent.yaml").read_text()):
        text = " ".join((HERE / entry["file"]).read_text().split())
        assert entry["before"] in text, entry
        assert entry["before"] != entry["after"]
        assert len(entry["reason"]) > 20
