"""Layers of configuration: who overrules whom, and that a saved one is the same run again."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest

from vaezoo.config import (
    RESERVED,
    SECTIONS,
    Components,
    RunConfig,
    build_config,
    load_config,
    parse_settings,
    resolve_components,
    split_by_section,
)
from vaezoo.errors import OptionError, UnknownNameError
from vaezoo.plugins.registry import Registry, registry
from vaezoo.plugins.specs import LossSpec, ModelSpec


def components(
    data: dict[str, Any] | None = None, model: dict[str, Any] | None = None
) -> Components:
    """vanilla, elbo and sprites with training defaults of the data's and the model's own."""
    vanilla = resolve_components({"model": "vanilla", "data": "sprites"}, {})
    return dataclasses.replace(
        vanilla,
        model=dataclasses.replace(vanilla.model, train_options=model or {}),
        data=dataclasses.replace(vanilla.data, train_options=data or {}),
    )


def option(config: RunConfig, section: str, name: str) -> Any:
    return getattr(config.options[section], name)


def write(path: Path, text: str) -> Path:
    file = path / "given.yaml"
    file.write_text(text)
    return file


def test_the_later_layer_wins() -> None:
    layers: list[dict[str, Any]] = [{"batch_size": n} for n in (1, 2, 3, 4)]
    for top in range(5):
        used = [layers[i] if i < top else {} for i in range(4)]
        config = build_config(components(used[0], used[1]), {"train": used[2]}, {"train": used[3]})
        assert config.train.batch_size == (top or 64)


def test_layers_below_keep_what_the_ones_above_leave_alone() -> None:
    config = build_config(
        components({"lr": 0.5, "seed": 1, "batch_size": 2}, {"seed": 3}),
        {
            "train": {"batch_size": 7},
            "bottleneck": {"latent_dim": 5},
            "network": {"hidden": [4]},
        },
        {"bottleneck": {"latent_dim": 6}},
    )
    assert (config.train.lr, config.train.seed, config.train.batch_size) == (0.5, 3, 7)
    assert option(config, "bottleneck", "latent_dim") == 6
    assert option(config, "network", "hidden") == (4,)


@pytest.mark.parametrize(
    ("data", "model", "sections", "line", "epochs", "steps"),
    [
        ({}, {}, {}, {}, None, None),
        ({"epochs": 1}, {}, {}, {}, 1, None),
        ({"epochs": 1}, {}, {}, {"steps": 5}, None, 5),
        ({"epochs": 1}, {"steps": 9}, {}, {}, None, 9),
        ({"epochs": 1}, {"steps": 9}, {"epochs": 2}, {}, 2, None),
        ({"steps": 1}, {}, {"steps": 2}, {"epochs": "3"}, 3, None),
        ({}, {}, {"epochs": 10, "steps": None}, {"steps": "4"}, None, 4),
        ({}, {}, {"epochs": None, "steps": 4}, {"epochs": 2}, 2, None),
        ({}, {}, {"epochs": 7}, {"steps": "none"}, 7, None),
    ],
)
def test_epochs_and_steps_overrule_each_other(
    data: Any, model: Any, sections: Any, line: Any, epochs: int | None, steps: int | None
) -> None:
    config = build_config(components(data, model), {"train": sections}, {"train": line})
    assert (config.train.epochs, config.train.steps) == (epochs, steps)


@pytest.mark.parametrize(
    ("given", "per_epoch", "total"),
    [
        ({}, 5, 1000),
        ({}, 99, 1000),
        ({}, 101, 1010),
        ({"epochs": 10}, 5, 50),
        ({"steps": 3}, 5, 3),
    ],
)
def test_training_by_default_is_ten_epochs_and_never_a_few_steps(
    given: Any, per_epoch: int, total: int
) -> None:
    """Ten epochs of a small table would be a few steps, which train nothing."""
    assert build_config(components(), {}, {"train": given}).train.total_steps(per_epoch) == total


def test_epochs_and_steps_in_one_layer_are_refused() -> None:
    with pytest.raises(OptionError, match="give --epochs or --steps, not both"):
        build_config(components(), {}, {"train": {"epochs": 1, "steps": 2}})


def test_a_models_loss_options_hold_for_its_own_loss_only() -> None:
    vanilla = dataclasses.replace(registry().get("model", "vanilla"), loss_options={"beta": 7})
    elbo = registry().get("loss", "elbo")
    own = dataclasses.replace(components(), model=vanilla)
    assert option(build_config(own, {}, {}), "loss", "beta") == 7
    assert option(build_config(own, {"loss": {"beta": 3}}, {}), "loss", "beta") == 3
    other = dataclasses.replace(own, loss=dataclasses.replace(elbo, name="other"))
    assert option(build_config(other, {}, {}), "loss", "beta") == 1


def test_options_of_a_config_file_go_with_what_it_names() -> None:
    sections = {"data": {"name": "folder", "max_skipped": 0.5}, "bottleneck": {"latent_dim": 9}}
    config = build_config(
        resolve_components({"model": "vanilla", "data": "sprites"}, sections), sections, {}
    )
    assert config.components.data.name == "sprites"
    assert option(config, "bottleneck", "latent_dim") == 9
    config = build_config(resolve_components({"model": "vanilla"}, sections), sections, {})
    assert option(config, "data", "max_skipped") == 0.5


def test_two_default_data_sets_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [dataclasses.replace(s, default=True) for s in registry().specs("dataset")]
    every = Registry.specs
    monkeypatch.setattr(
        Registry, "specs", lambda self, kind: specs if kind == "dataset" else every(self, kind)
    )
    with pytest.raises(OptionError, match="say which data set to use"):
        resolve_components({"model": "vanilla"}, {})


def test_names_come_from_the_line_then_the_config_file_then_the_defaults() -> None:
    sections = {"model": {"name": "vanilla"}, "data": {"name": "folder"}}
    chosen = resolve_components({}, sections)
    assert (chosen.model.name, chosen.loss.name, chosen.data.name) == ("vanilla", "elbo", "folder")
    assert resolve_components({"model": "vanilla"}, {}).data.name == "sprites"
    with pytest.raises(OptionError, match=r"say which model to train \(vaezoo list"):
        resolve_components({}, {})
    with pytest.raises(UnknownNameError, match="there is no model 'vanila'; did you mean"):
        resolve_components({}, {"model": {"name": "vanila"}})


def test_a_loss_that_needs_what_the_model_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    picky = LossSpec(name="picky", target="far:Picky", summary="Picky", requires=("elbo", "codes"))
    monkeypatch.setitem(registry()._specs, ("loss", "picky"), picky)
    with pytest.raises(OptionError, match="loss picky needs a model with codes, which vanilla is"):
        resolve_components({"model": "vanilla", "loss": "picky"}, {})


@pytest.mark.parametrize("data", ["sprites", "folder"])
def test_a_saved_config_is_the_same_run(tmp_path: Path, data: str) -> None:
    names = {"model": "vanilla", "data": data, "likelihood": "gaussian"}
    chosen = resolve_components(names, {})
    given = {
        "train": {"steps": 17, "lr": "3e-4", "grad_clip": 1, "compile": "on"},
        "network": {"hidden": "8,16"},
        "likelihood": {"scale": 0.5},
        "loss": {"beta": 4},
        "data": {"image_size": "96x64", "binarize": "dynamic"},
    }
    if data == "folder":
        given["data"]["root"] = "päth with: colon"
    config = build_config(chosen, {}, given)
    sections = load_config(write(tmp_path, config.to_yaml()))
    assert list(sections) == [
        *("model", "network", "bottleneck", "likelihood"),
        *("loss", "data", "train"),
    ]
    again = build_config(resolve_components({}, sections), sections, {})
    assert again == config
    assert again.to_yaml() == config.to_yaml()


def test_every_shipped_config_file_is_valid() -> None:
    paths = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
    assert paths
    for path in paths:
        sections = load_config(path)
        build_config(resolve_components({}, sections), sections, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [", "is not YAML, line 1"),
        ("model:\n\t- x", "is not YAML, line 2"),
        ("- a\n- b", "is no config file: it needs sections train, model, network,"),
        ("just words", "is no config file"),
        ("modle: {name: vanilla}", "unknown section 'modle'; did you mean 'model'?"),
        ("1: {}", "unknown section 1 ("),
        ("model: vanilla", "section model is not a list of option: value"),
        ("model: {1: 2}", "section model is not a list of option: value"),
        ("model: {name: 3}", "the name in section model is not text"),
        ("model: !!python/object:os.system {}", "has the tag tag:yaml.org,2002:python/object:os"),
        ("a: &a [*a", "has the alias *a, and aliases are not read, line 1"),
        ("[" * 5000, "is nested too deeply"),
        ("\x00", "is not YAML"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)) as caught:
        load_config(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"train": {"epoch": 3}}, "training has no option 'epoch'; did you mean 'epochs'"),
        ({"train": {"name": "x"}}, "training has no option 'name'"),
        ({"loss": {"beta": -1}}, "loss elbo: --beta: should be greater than or equal to 0"),
        ({"bottleneck": {"latent_dim": 0}}, "bottleneck gaussian: --latent-dim: should be"),
        ({"data": {"image_size": [[1], [2]]}}, "data set sprites: --image-size"),
        ({"train": {"seed": {"a": 1}}}, "training: --seed"),
    ],
)
def test_config_files_with_wrong_options(sections: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)) as caught:
        build_config(resolve_components({"model": "vanilla"}, sections), sections, {})
    assert "\n" not in str(caught.value)


def test_an_empty_config_file_is_valid(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "# nothing yet\n")) == {}


def test_config_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"cannot read .*: No such file"):
        load_config(tmp_path / "missing.yaml")
    with pytest.raises(OptionError, match=r"cannot read .*: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"model: {name: \xff}")
    with pytest.raises(OptionError, match="is not YAML"):
        load_config(tmp_path / "latin.yaml")
    with pytest.raises(OptionError, match="is too large"):
        load_config(write(tmp_path, "#" * (1 << 21)))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_device_without_end_and_a_pipe() -> None:
    with pytest.raises(OptionError, match="is too large"):
        load_config(Path("/dev/zero"))
    reader, writer = os.pipe()
    os.write(writer, b"loss: {beta: 2}")
    os.close(writer)
    assert load_config(Path(f"/dev/fd/{reader}")) == {"loss": {"beta": 2}}
    os.close(reader)


def test_settings() -> None:
    given = parse_settings(
        [
            "bottleneck.latent_dim=16",
            "loss.beta=4.5",
            "network.hidden=[8, 8]",
            "data.indices=0:9:2",
            "train.compile=on",
            "train.lr=1e-4",
            "train.grad_clip=",
            "bottleneck.latent_dim=17",
        ]
    )
    assert set(given) == set(SECTIONS)
    config = build_config(components(), {}, given)
    assert option(config, "bottleneck", "latent_dim") == 17
    assert option(config, "network", "hidden") == (8, 8)
    assert option(config, "loss", "beta") == 4.5
    assert (config.train.compile, config.train.lr, config.train.grad_clip) == ("on", 1e-4, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("beta=4", "is not SECTION.OPTION=VALUE"),
        ("loss.beta", "is not SECTION.OPTION=VALUE"),
        ("los.beta=4", "a section out of train, model, network,"),
        ("loss.=4", "is not SECTION.OPTION=VALUE"),
        ("", "is not SECTION.OPTION=VALUE"),
        ("model.name=vanilla", "name the model itself on the command line"),
        ("loss.beta=[", "the value is not YAML"),
        ("loss.beta=" + "[" * 5000, "the value is nested too deeply"),
    ],
)
def test_wrong_settings(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)) as caught:
        parse_settings([text])
    assert "\n" not in str(caught.value)


def test_plain_names_are_sorted_into_their_sections() -> None:
    sections = split_by_section(
        components(), {"beta": 4, "latent_dim": 2, "epochs": 1, "examples": 9}
    )
    assert {section: options for section, options in sections.items() if options} == {
        "train": {"epochs": 1},
        "bottleneck": {"latent_dim": 2},
        "loss": {"beta": 4},
        "data": {"examples": 9},
    }
    with pytest.raises(OptionError, match="has an option 'btea'; did you mean 'beta'"):
        split_by_section(components(), {"btea": 4})


def test_a_name_that_is_taken_gets_its_section_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    clash = ModelSpec(
        name="clash", target="far:Clash", options="vaezoo_vanilla.options:ELBOOptions", summary="C"
    )
    both = dataclasses.replace(components(), model=clash)
    names = both.flat_names()
    assert names["beta"] == ("model", "beta")
    assert names["loss_beta"] == ("loss", "beta")
    assert not set(names) & set(RESERVED)
