"""A model in one file, no packaging: trained, shown, measured, and its run loaded again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vaezoo.cli.main import main
from vaezoo.plugins.registry import registry
from vaezoo.runs.provenance import _warn_once

FILE = '''
"""A linear autoencoder in one file."""

from __future__ import annotations

from pydantic import Field
from torch import nn

import vaezoo
from vaezoo.models.distributions import gaussian_from_params


class MyOptions(vaezoo.Options):
    size: int = Field(3, ge=1, description="size of the latent")


class MyVAE(vaezoo.BaseVAE):
    """One layer each way."""

    parts = ("likelihood",)
    options: MyOptions

    def __init__(self, options, data, parts):
        super().__init__(options, data)
        self.latent_shape = (options.size,)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(data.numel, 2 * options.size))
        self.decoder = nn.Sequential(
            nn.Linear(options.size, data.numel), nn.Unflatten(1, data.shape)
        )
        self.likelihood = parts.likelihood

    def encode(self, x, y=None):
        return gaussian_from_params(self.encoder(x))

    def decode(self, z, y=None):
        return self.likelihood(self.decoder(z))
'''
TINY = [
    *("--examples", "80", "--test", "16", "--image-size", "8", "--device", "cpu"),
    *("--batch-size", "16", "--steps", "4"),
]


Vaezoo = Callable[..., "Said"]


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def vaezoo(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Vaezoo]:
    """The command as a new process would run it: it knows nothing of what was named before."""

    before = set(sys.modules)

    def run(*args: str, **environment: str) -> Said:
        registry.cache_clear()
        _warn_once.cache_clear()
        # Only what came since: other tests hold classes of files that they named.
        for name in [n for n in sys.modules if n.startswith("file_") and n not in before]:
            del sys.modules[name]
        capsys.readouterr()
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            code = main(list(args))
        return Said(code, *capsys.readouterr())

    (in_tmp / "my_vae.py").write_text(FILE)
    yield run
    registry.cache_clear()


def refused(said: Said) -> str:
    assert said.code == 2, said.err
    assert said.err.count("\n") == 1
    return said.err


@pytest.fixture
def run(in_tmp: Path, vaezoo: Vaezoo) -> Path:
    done = vaezoo("train", "--deterministic", "./my_vae.py:MyVAE", *TINY, "--size", "2")
    assert done.code == 0, done.err
    assert done.err == ""
    return in_tmp / "runs" / "my_vae-sprites-001"


def test_its_run_is_loaded_when_the_file_is_named_again(run: Path, vaezoo: Vaezoo) -> None:
    made_by = json.loads((run / "run.json").read_text())["model"]
    plugin = f"{run.parents[1]}/my_vae.py:MyVAE"
    assert made_by["plugin"] == plugin
    assert made_by["version"].startswith("sha256:")

    # Nothing is run because a run folder says so; what to type is said, and works as it is.
    printed = refused(vaezoo("evaluate", str(run)))
    assert f"vaezoo --plugin {plugin} ..." in printed
    assert printed in (refused(vaezoo("train", "--resume", str(run))), printed)
    done = vaezoo("--plugin", plugin, "evaluate", str(run), "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["examples"] == 16
    done = vaezoo("evaluate", str(run), VAEZOO_PLUGINS=f" ./my_vae.py ,{plugin}")
    assert done.code == 0
    assert "'my_vae' is registered by" in done.err  # named twice, by two names

    more = vaezoo("--plugin", "my_vae.py:MyVAE", "train", "--resume", str(run), "--steps", "6")
    assert more.code == 0, more.err


def test_a_file_that_changed_since_costs_one_line(run: Path, vaezoo: Vaezoo) -> None:
    file = Path("my_vae.py")
    file.write_text(FILE + "\n# a comment more\n")
    done = vaezoo("--plugin", "my_vae.py:MyVAE", "evaluate", str(run))
    assert done.code == 0
    assert done.err == (f"vaezoo: {file.absolute()}:MyVAE has changed since {run} was made\n")


def test_a_file_that_is_gone_is_reported(run: Path, vaezoo: Vaezoo) -> None:
    Path("my_vae.py").unlink()
    printed = refused(vaezoo("--plugin", "my_vae.py:MyVAE", "evaluate", str(run)))
    assert "cannot read" in printed


def test_info_bench_and_list_know_it(in_tmp: Path, vaezoo: Vaezoo) -> None:
    shown = vaezoo("info", "my_vae.py:MyVAE")
    assert "One layer each way." in shown.out
    assert "--size" in shown.out
    listed = vaezoo("list", VAEZOO_PLUGINS="my_vae.py")
    assert "my_vae " in listed.out
    rows = json.loads(vaezoo("--plugin", "my_vae.py", "plugins", "--json").out)
    assert rows[-1]["name"] == str(in_tmp / "my_vae.py")
    assert rows[-1]["models"] == ["my_vae"]
    assert rows[-1]["distribution"] == ""
    measured = vaezoo(
        *("bench", "./my_vae.py:MyVAE", "--mode", "encode", "--image-size", "8", "--device", "cpu"),
        *("--seconds", "0.01", "--batch-size", "4", "--json", "r.json"),
    )
    assert measured.code == 0, measured.err
    (row,) = json.loads(Path("r.json").read_text())["rows"]
    assert (row["model"], row["status"]) == ("my_vae", "ok")


def test_strict_makes_a_failure_an_error(in_tmp: Path, vaezoo: Vaezoo) -> None:
    (in_tmp / "bad.py").write_text("1 / 0")
    lax = vaezoo("list", VAEZOO_PLUGINS="bad.py")
    assert lax.code == 0
    assert "ZeroDivisionError" in lax.err
    for done in (
        vaezoo("--strict", "list", VAEZOO_PLUGINS="bad.py"),
        vaezoo("list", VAEZOO_PLUGINS="bad.py", VAEZOO_STRICT_PLUGINS="1"),
    ):
        assert done.code == 2
        assert done.out == ""
        assert "plugins failed, and --strict makes that an error" in done.err.splitlines()[-1]
    assert vaezoo("--strict", "list").code == 0
    assert "bad.py: ZeroDivisionError" in refused(vaezoo("--plugin", "bad.py", "list"))


@pytest.mark.parametrize("base", ["model", "loss"])
def test_what_its_constructor_raises_is_one_line(in_tmp: Path, vaezoo: Vaezoo, base: str) -> None:
    """With the innermost line of the file, though the error came up deeper; nothing is left."""
    file = in_tmp / "wrong.py"
    head = "from vaezoo import BaseLoss, BaseVAE, Options\n\n"
    wrong = "        super().__init__({})\n        int('three\\nfour')\n"
    file.write_text(
        head + "class Wrong(BaseVAE):\n    options: Options\n"
        "    def __init__(self, options, data):\n" + wrong.format("options, data")
        + "    def encode(self, x, y=None): ...\n    def decode(self, z, y=None): ...\n"
        if base == "model"
        else head + "class Wrong(BaseLoss):\n    options: Options\n"
        "    def __init__(self, options, model, data):\n" + wrong.format("options, model, data")
        + "    def forward(self, model, batch, context): ...\n"
    )  # fmt: skip
    line = file.read_text().splitlines().index("        int('three\\nfour')") + 1
    named = ["./wrong.py:Wrong"] if base == "model" else ["vanilla", "--loss", "./wrong.py:Wrong"]
    printed = refused(vaezoo("train", *named, *TINY))
    assert printed.startswith(f"vaezoo: {base} wrong cannot be built: ValueError: invalid literal")
    assert f"({file}, line {line}; vaezoo check {file}:Wrong shows more)" in printed
    assert not (in_tmp / "runs").exists()
    # Where it says that more is shown, it is.
    shown = vaezoo("check", f"{file}:Wrong", "--only", "seeds").out
    assert f'File "{file}", line {line}' in shown
