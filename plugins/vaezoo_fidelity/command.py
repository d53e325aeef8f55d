"""`vaezoo classifier`: writes a classifier of a data set, whose features compare images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vaezoo.cli.options import check_writable, device_option, out_option, set_option
from vaezoo.errors import DataError, OptionError


@click.command()
@click.argument("data", metavar="DATA")
@set_option("An option of DATA, as data.examples=1000. Repeatable.")
@click.option("--root", type=click.Path(path_type=Path), metavar="DIR", help="Where the data lies.")
@out_option("classifier.safetensors", "The file to write: .safetensors.")
@device_option
def command(
    data: str, settings: tuple[str, ...], root: Path | None, out: Path, overwrite: bool, device: str
) -> None:
    """Train a classifier, whose features compare images.

    It is the network that the metric fid uses where Inception is not available. The loss
    perceptual_gan compares images by its features: --perceptual classifier --perceptual-file FILE.
    The data needs classes, or known factors of variation.
    """
    check_writable(out, overwrite, (".safetensors",))

    from vaezoo import load_data
    from vaezoo.evaluation.metric import MetricUnavailable
    from vaezoo.runtime.device import resolve_device
    from vaezoo.training.progress import Progress

    from .classifier import load_classifier, save_classifier

    options: dict[str, Any] = {} if root is None else {"root": root}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name.startswith("data.") or not equals:
            raise OptionError(f"--set {setting}: give data.OPTION=VALUE")
        options[name.removeprefix("data.")] = value
    with Progress() as progress:
        splits = load_data(data, **options)
        if not splits.spec.is_image:
            raise DataError(f"a classifier sees images, and {data} has {splits.spec.describe()}")
        try:
            found = load_classifier(splits, "none", resolve_device(device), progress.update)
        except MetricUnavailable as error:
            raise DataError(str(error)) from None
    save_classifier(out, found.network, found.accuracy)
    print(f"{out}: a classifier of the {found.target}, held-out accuracy {found.accuracy:.3f}")
