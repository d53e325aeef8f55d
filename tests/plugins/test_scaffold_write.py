"""`vaezoo new` writes packages that work, and never over anything."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vaezoo.cli.main import main
from vaezoo.errors import VaezooError
from vaezoo.plugins.specs import PARTS, Kind
from vaezoo_scaffold.write import KINDS, Package, write_package

Environment = Callable[..., str]

ALL: tuple[Kind, ...] = ("model", "loss", "dataset")


@pytest.mark.parametrize(
    ("flags", "modules"),
    [
        ([], ["model"]),
        (["--kind", "loss"], ["loss"]),
        (["--kind", "dataset"], ["dataset"]),
        (["--kind", "loss,dataset"], ["dataset", "loss"]),
        (["--kind", ",".join(KINDS)], list(KINDS)),
    ],
)
def test_files(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], flags: list[str], modules: list[str]
) -> None:
    assert main(["new", "some-thing", *flags]) == 0
    said = capsys.readouterr().out
    assert "pip install -e some-thing" in said
    found = sorted(str(p.relative_to(in_tmp)) for p in in_tmp.rglob("*") if p.is_file())
    assert found == [
        "some-thing/README.md",
        "some-thing/pyproject.toml",
        "some-thing/some_thing/__init__.py",
        *(f"some-thing/some_thing/{module}.py" for module in sorted([*modules, "plugin"])),
        "some-thing/tests/test_contract.py",
    ]
    for path in found:
        content = (in_tmp / path).read_text()
        assert "$" not in content
        assert content.endswith("\n")
        assert not content.endswith("\n\n")
        if path.endswith(".py"):
            ast.parse(content)
    assert len((in_tmp / "some-thing/tests/test_contract.py").read_text().split("\n")) <= 8


def test_nothing_is_written_over(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "mine").mkdir()
    (in_tmp / "mine" / "thesis.tex").write_text("years of work")
    assert main(["new", "mine"]) == 2
    assert "mine exists already: nothing was written" in capsys.readouterr().err
    assert [p.name for p in (in_tmp / "mine").iterdir()] == ["thesis.tex"]
    (in_tmp / "file").write_text("too")
    assert main(["new", "file"]) == 2
    assert (in_tmp / "file").read_text() == "too"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-VAE", "is no name"),
        ("../up", "is no name"),
        ("a/b", "is no name"),
        ("2vae", "is no name"),
        ("my--vae", "is no name"),
        ("class", "is no name"),
        ("torch", "there is a module torch already"),
        ("vaezoo-vanilla", "there is a module vaezoo_vanilla already"),
        ("vanilla", "there is a model vanilla already"),
    ],
)
def test_names_that_are_none_or_taken(in_tmp: Path, name: str, said: str) -> None:
    with pytest.raises(VaezooError, match=said):
        write_package(name, ["model"], in_tmp)
    assert list(in_tmp.iterdir()) == []


def test_a_loss_may_have_a_models_name(in_tmp: Path) -> None:
    assert write_package("vanilla", ["loss"], in_tmp).names() == {"loss": "vanilla"}


def test_several_things_have_names_of_their_own() -> None:
    package = Package("my-vae", ALL)
    assert package.names() == {
        "model": "my_vae",
        "loss": "my_vae_loss",
        "dataset": "my_vae_data",
    }
    assert package.brings() == (
        "the model my_vae, the loss my_vae_loss and the data set my_vae_data"
    )
    assert Package("my-vae", ("loss",)).brings() == "the loss my_vae"


@pytest.mark.parametrize("kinds", [("model",), ALL, KINDS])
def test_what_was_written_installs_and_works(
    in_tmp: Path, environment: Environment, kinds: tuple[Kind, ...]
) -> None:
    """In an environment of its own: install, list, check, train a little, run its tests."""
    names = installed(in_tmp, environment, kinds)
    assert "keeps the contract" in environment("vaezoo", "check", names["model"])
    data = names.get("dataset", "sprites")
    small = ["--device", "cpu", "--steps", "3", "--batch-size", "4"]
    small += [] if data in names.values() else ["--examples", "60", "--test", "20"]
    environment("vaezoo", "train", names["model"], "--data", data, *small)
    assert (in_tmp / f"runs/{names['model']}-{data}-001/summary.json").exists()
    assert " failed" not in environment("pytest", "-q", "fresh-thing")


@pytest.mark.parametrize("kind", ["loss", "dataset"])
def test_one_alone_keeps_the_contract(in_tmp: Path, environment: Environment, kind: Kind) -> None:
    names = installed(in_tmp, environment, (kind,))
    assert "keeps the contract" in environment("vaezoo", "check", names[kind])


@pytest.mark.parametrize("kind", PARTS)
def test_a_part_trains_with_its_defaults(
    in_tmp: Path, environment: Environment, kind: Kind
) -> None:
    """The last command of its README, with few steps."""
    installed(in_tmp, environment, (kind,))
    command = Package("fresh-thing", (kind,)).commands()[-1].split()
    environment(*command, "--steps", "2", "--examples", "60", "--test", "20", "--hidden", "8")


def installed(folder: Path, environment: Environment, kinds: tuple[Kind, ...]) -> dict[Kind, str]:
    """Write a package and install it; the names that are listed then."""
    names = write_package("fresh-thing", kinds, folder).names()
    environment("pip", "install", "--quiet", "./fresh-thing")
    listed = environment("vaezoo", "--strict", "list", "--kind", "all")
    assert {*names.values()} <= {line.split()[0] for line in listed.splitlines()}
    return names


def test_the_environment_is_another(environment: Environment) -> None:
    assert environment("python", "-c", "import sys; print(sys.prefix)").strip() != sys.prefix
