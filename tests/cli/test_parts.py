"""Parts on the command line, in config files and from Python: names, files, classes, flags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

import vaezoo
from vaezoo.cli.main import group, main
from vaezoo.config import load_config, resolve_components
from vaezoo.data.spec import DataSpec
from vaezoo.errors import OptionError
from vaezoo.plugins.registry import registry
from vaezoo.plugins.sources import import_file

PARTS = """
import math
from pydantic import Field
from torch import nn
from vaezoo import Network, Options
from vaezoo.models.likelihoods import GaussianLikelihood

class NetOptions(Options):
    width: int = Field(8, ge=1, description="width of the network")

class Net(Network):
    options: NetOptions
    def encoder(self, out_features):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(self.data.numel, self.options.width), nn.Tanh(),
            nn.Linear(self.options.width, out_features),
        )
    def decoder(self, in_features, out_shape):
        last = nn.Linear(in_features, math.prod(out_shape))
        return nn.Sequential(last, nn.Unflatten(1, out_shape))

class WideOptions(Options):
    width: float = Field(0.5, gt=0, description="width of a value")

class Wide(GaussianLikelihood):
    options: WideOptions
    def __init__(self, options, data):
        super().__init__(data, options.width, False)
        self.options = options
"""


@pytest.fixture
def file(in_tmp: Path) -> Iterator[Path]:
    (in_tmp / "parts.py").write_text(PARTS)
    yield in_tmp / "parts.py"
    registry.cache_clear()


LINE = ["train", "vanilla", "--network", "./parts.py:Net", "--likelihood", "./parts.py:Wide"]
SMALL = ["--image-size", "8", "--examples", "60", "--test", "20", "--steps", "2"]


def test_of_two_parts_with_one_option_the_later_is_prefixed(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*LINE, "--help"]) == 0
    words = capsys.readouterr().out.split()
    assert {"--width", "--likelihood-width"} <= {*words}
    flags = ["--width", "5", "--likelihood-width", "0.25", "--latent-dim", "3"]
    assert main([*LINE, *SMALL, *flags, "--out", "run"]) == 0
    options = vaezoo.load_run("run").config.options
    assert options["network"].width == 5  # type: ignore[attr-defined]
    assert options["likelihood"].width == 0.25  # type: ignore[attr-defined]


def test_completion_knows_the_names_of_parts() -> None:
    complete = ShellComplete(group, {}, "vaezoo", "_VAEZOO_COMPLETE")
    for flag, typed, name in (
        ("--network", "res", "resnet"),
        ("--bottleneck", "vm", "vmf"),
        ("--likelihood", "bern", "bernoulli"),
        ("--sampler", "auto", "autoregressive"),
    ):
        found = complete.get_completions(["train", "vanilla", flag], typed)
        assert name in [item.value for item in found]
        (path,) = complete.get_completions(["train", "vanilla", flag], "./my")
        assert path.type == "file"


def test_a_config_file_names_parts_and_no_files(file: Path) -> None:
    recipe = Path("recipe.yaml")
    recipe.write_text("model: {name: vanilla}\nnetwork: {name: mlp}\nsampler: {name: gaussian}\n")
    parts = resolve_components({}, load_config(recipe)).parts
    assert (parts["network"].name, parts["sampler"].name) == ("mlp", "gaussian")
    for kind in ("network", "bottleneck", "likelihood", "sampler"):
        recipe.write_text(f"model: {{name: vanilla}}\n{kind}: {{name: './parts.py:Net'}}\n")
        with pytest.raises(OptionError, match="a config file cannot name a file to run"):
            resolve_components({}, load_config(recipe))


def test_from_python_a_part_is_a_class_or_an_object(file: Path) -> None:
    module = import_file(str(file))
    data = DataSpec(shape=(1, 8, 8))
    by_class = vaezoo.create_model("vanilla", data, network=module.Net, width=3, latent_dim=2)
    assert by_class.encoder[1].out_features == 3
    built = module.Net(module.NetOptions(width=6), data)
    by_object = vaezoo.create_model("vanilla", data, network=built, latent_dim=2)
    assert by_object.encoder[1].out_features == 6
    with pytest.raises(OptionError, match="bottleneck: Net is a network"):
        vaezoo.create_model("vanilla", data, bottleneck=module.Net)


def test_data_of_one_shape_is_refused_before_it_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "signals.py"
    file.write_text(
        "from vaezoo import BaseDataset\n\n"
        "class Signals(BaseDataset):\n"
        '    """Two channels of 256 samples."""\n\n'
        "    shape = (2, 256)\n\n"
        "    def load(self):\n"
        "        raise AssertionError('it was read')\n"
    )
    line = ["train", "vae_gan", "--data", f"{file}:Signals", "--out", str(tmp_path / "run")]
    assert main(line) == 2
    said = capsys.readouterr().err
    assert said == "vaezoo: model vae_gan takes images, and this data is signals of 2×256\n"
    assert main(["info", f"{file}:Signals"]) == 0
    assert "2×256" in capsys.readouterr().out
