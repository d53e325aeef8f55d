"""Plugins that the user names: a file or a module, whole or one class of it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vaezoo
from vaezoo.config import resolve_components
from vaezoo.errors import VaezooError
from vaezoo.plugins.loader import PluginRecord, load_named
from vaezoo.plugins.registry import Registry
from vaezoo.plugins.sources import PluginSource, is_source, spec_of_class
from vaezoo.plugins.specs import InputSpec, ModelSpec

BARE = '''
"""A file with classes and no hooks."""
from __future__ import annotations

from abc import abstractmethod

import vaezoo
from vaezoo.models.distributions import diagonal_normal


class TinyOptions(vaezoo.Options):
    size: int = 3


class TinyVAE(vaezoo.BaseVAE):
    """Says nothing of x.

    And at length.
    """

    options: TinyOptions

    def __init__(self, options, data):
        super().__init__(options, data)
        self.latent_shape = (options.size,)

    def encode(self, x, y=None):
        return self.prior().expand((len(x),))

    def decode(self, z, y=None):
        zeros = z.new_zeros(len(z), *self.data.shape)
        return diagonal_normal(zeros, zeros + 1, zeros.dim() - 1)


class LabelledVAE(TinyVAE):
    conditional = True


class TinyLoss(vaezoo.BaseLoss):
    def forward(self, model, batch, context):
        raise NotImplementedError


class Unfinished(TinyVAE):
    @abstractmethod
    def more(self): ...


class _Private(TinyVAE):
    pass
'''

HOOKED = """
import vaezoo


class Plain(vaezoo.BaseVAE):
    def encode(self, x, y=None): ...
    def decode(self, z, y=None): ...


@vaezoo.hookimpl
def register_models(register):
    register(vaezoo.ModelSpec(name="fancy", target=f"{__name__}:Plain", summary="From a hook"))
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "my-tiny.py"
    path.write_text(BARE)
    return path


def load(text: str) -> PluginRecord:
    return load_named(PluginSource.parse(text))


def names(record: PluginRecord) -> list[tuple[str, str]]:
    assert record.error == ""
    return [(spec.kind, spec.name) for spec in record.specs]


@pytest.mark.parametrize(
    ("word", "is_one"),
    [
        ("vanilla", False),
        ("VQ-VAE", False),
        ("my.module", False),
        ("a.py", True),
        ("./a.py:B", True),
        ("../x y/a.py:B", True),
        ("C:\\x\\a.py:B", True),
        ("package.module:Class", True),
        ("module:Class", True),
        ("a.py:", False),
        ("a:1", False),
    ],
)
def test_what_is_a_source(word: str, is_one: bool) -> None:
    assert is_source(word) == is_one


def test_a_file_is_named_from_any_folder(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = PluginSource.parse("./my-tiny.py:TinyVAE")
    assert (source.where, source.attribute) == (str(bare), "TinyVAE")
    assert str(source) == f"{bare}:TinyVAE"
    assert PluginSource.parse(str(source)) == source


def test_one_class_of_a_file(bare: Path) -> None:
    record = load(f"{bare}:TinyVAE")
    assert names(record) == [("model", "tiny_vae")]
    (spec,) = record.specs
    assert isinstance(spec, ModelSpec)
    assert spec.summary == "Says nothing of x."
    assert spec.tags == ("elbo", "importance")
    assert spec.input_spec == InputSpec(ndims=(0, 1, 2, 3))
    assert spec.load_options()().size == 3
    assert issubclass(spec.load(), vaezoo.BaseVAE)
    assert (record.name, record.location) == (f"{bare}:TinyVAE", str(bare))
    assert record.version == "sha256:" + hashlib.sha256(BARE.encode()).hexdigest()
    assert not record.is_installed


def test_a_bottleneck_has_the_tags_of_a_model_unless_it_says_others() -> None:
    for own, tags in (({}, ("elbo", "importance")), ({"tags": ("discrete",)}, ("discrete",))):
        assert spec_of_class(type("Tiny", (vaezoo.Bottleneck,), own)).tags == tags


def test_a_class_that_says_nothing_has_the_defaults_of_the_guide() -> None:
    """The table of docs/write_a_plugin.md; what a class says itself is in its spec."""
    said = {
        "tags": ("words",),
        "input_spec": InputSpec(shape=(1, 8, 8)),
        "requires": ("discrete",),
        "domains": ("count",),
    }
    any_shape, density = InputSpec(ndims=(0, 1, 2, 3)), ("elbo", "importance")
    for base, defaults in (
        (vaezoo.BaseVAE, {"tags": density, "input_spec": any_shape, "loss": "elbo", "parts": {}}),
        (vaezoo.Network, {"tags": (), "input_spec": any_shape}),
        (vaezoo.Bottleneck, {"tags": density, "requires": ()}),
        (vaezoo.Likelihood, {"tags": (), "domains": ("binary", "unit", "real", "count")}),
        (vaezoo.Sampler, {"tags": (), "requires": ()}),
        (vaezoo.BaseLoss, {"tags": (), "requires": ()}),
        (vaezoo.BaseDataset, {"tags": ()}),
    ):
        silent = vars(spec_of_class(type("Silent", (base,), {})))
        assert {name: silent[name] for name in defaults} == defaults
        own = {name: value for name, value in said.items() if name in defaults}
        spoken = vars(spec_of_class(type("Spoken", (base,), own)))
        assert {name: spoken[name] for name in own} == own
    model = spec_of_class(type("Other", (vaezoo.EncoderDecoderVAE,), {"default_loss": "iwae"}))
    assert isinstance(model, ModelSpec)
    assert model.loss == "iwae"
    assert {*model.parts} == {"network", "bottleneck", "likelihood"}


def test_a_whole_file_brings_what_it_defines(bare: Path) -> None:
    record = load(str(bare))
    assert names(record) == [
        ("model", "tiny_vae"),
        ("model", "labelled_vae"),
        ("loss", "tiny_loss"),
    ]
    labelled = record.specs[1]
    assert labelled.tags == ("elbo", "importance", "labels")
    assert labelled.summary == "LabelledVAE"  # its parent's words are not about it
    assert labelled.load_options()().size == 3


def test_hooks_say_more_than_a_class(tmp_path: Path) -> None:
    path = tmp_path / "hooked.py"
    path.write_text(HOOKED)
    for text in (str(path), f"{path}:Plain"):
        record = load(text)
        assert names(record) == [("model", "fancy")]
        assert record.specs[0].load().__name__ == "Plain"
    assert "brings no Other" in load(f"{path}:Other").error


def test_a_module_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_module_of_mine.py").write_text(BARE)
    monkeypatch.syspath_prepend(str(tmp_path))
    record = load("a_module_of_mine:TinyVAE")
    assert names(record) == [("model", "tiny_vae")]
    assert record.specs[0].target == "a_module_of_mine:TinyVAE"
    assert (record.distribution, record.version) == ("", "")
    sys.modules.pop("a_module_of_mine")


@pytest.mark.parametrize(
    ("code", "attribute", "said"),
    [
        ("", "A", "has no class A (it has none)"),
        (BARE, "Tiny", "has no class Tiny (it has TinyVAE, LabelledVAE, TinyLoss)"),
        (BARE, "TinyOptions", "is no class that derives from one of BaseVAE"),
        ("A = 3", "A", "is no class that derives from one of BaseVAE"),
        ("\n\n1 / 0", "A", "ZeroDivisionError: division by zero (line 3)"),
        ("import no_such_thing", "A", "No module named 'no_such_thing' (line 1)"),
        ("\ndef (", "A", "SyntaxError: invalid syntax (broken.py, line 2)"),
        ("raise SystemExit(0)", "A", "SystemExit: 0"),
        ("", "", "brings no class that vaezoo knows"),
    ],
)
def test_a_broken_file_says_where(tmp_path: Path, code: str, attribute: str, said: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(code)
    text = f"{path}:{attribute}" if attribute else str(path)
    record = load(text)
    assert said in record.error
    assert record.specs == []
    with pytest.raises(VaezooError, match=re.escape(said)):
        Registry([]).add(text)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(VaezooError, match=r"cannot read .*nothing\.py: No such file"):
        Registry([]).add(str(tmp_path / "nothing.py"))


def test_naming_a_file_again_runs_it_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "counted.py"
    code = BARE + "\nimport vaezoo\nvaezoo.ran = getattr(vaezoo, 'ran', 0) + 1\n"
    path.write_text(code)
    known = Registry([])
    first = known.add(f"{path}:TinyVAE")
    assert known.add(f"{path}:TinyVAE") is first
    known.add(f"{path}:TinyLoss")
    assert vars(vaezoo)["ran"] == 1
    assert known.get("loss", "tiny_loss").load().__module__ == first.specs[0].load().__module__

    path.write_text(code.replace("size: int = 3", "size: int = 4"))
    second = known.add(f"{path}:TinyVAE")
    assert vars(vaezoo)["ran"] == 2
    assert second.version != first.version
    assert known.get("model", "tiny_vae").load_options()().size == 4
    assert known.named() == [f"{path}:TinyLoss", f"{path}:TinyVAE"]
    del vaezoo.ran  # type: ignore[attr-defined]


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for folder, size in (("a", 5), ("b", 6)):
        (tmp_path / folder).mkdir()
        code = BARE.replace("size: int = 3", f"size: int = {size}").replace("Tiny", folder.upper())
        (tmp_path / folder / "same.py").write_text(code)
    known = Registry([])
    known.add(f"{tmp_path}/a/same.py:AVAE")
    known.add(f"{tmp_path}/b/same.py:BVAE")
    assert known.get("model", "avae").load_options()().size == 5
    assert known.get("model", "bvae").load_options()().size == 6


def test_a_name_that_is_taken_stays_whose_it_is(bare: Path) -> None:
    known = Registry([])
    known.add(f"{bare}:TinyVAE")
    with pytest.raises(VaezooError, match=r"'tiny_vae' is registered by .* give the class another"):
        known.add(str(bare))
    assert known.named() == [f"{bare}:TinyVAE"]


def test_resolve_takes_names_and_sources(bare: Path) -> None:
    known = Registry([])
    assert known.resolve("model", f"{bare}:TinyVAE").name == "tiny_vae"
    assert known.resolve("model", "tiny_vae").name == "tiny_vae"
    assert [spec.name for spec in known.find(f"{bare}:TinyVAE")] == ["tiny_vae"]
    with pytest.raises(VaezooError, match="is not one loss: it brings the model tiny_vae"):
        known.resolve("loss", f"{bare}:TinyVAE")


def test_a_config_file_cannot_name_a_file(bare: Path) -> None:
    with pytest.raises(VaezooError, match="a config file cannot name a file to run"):
        resolve_components({}, {"model": {"name": f"{bare}:TinyVAE"}})


def test_reading_a_file_of_hooks_alone_imports_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "hooks.py"
    path.write_text(
        "from vaezoo import ModelSpec, hookimpl\n@hookimpl\ndef register_models(register):\n"
        "    register(ModelSpec(name='far', target='far.away:Model', summary='Far away'))\n"
    )
    code = (
        "import sys; from vaezoo.plugins.registry import registry; "
        f"print(registry().add({str(path)!r}).specs[0].name); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "far\n"), done.stderr
