"""Registration of torchvision's data sets."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import DatasetSpec, hookimpl

_GREY, _COLOUR = "28×28 grey", "32×32 colour"
_SETS = (
    ("mnist", "Mnist", "70,000 handwritten digits", _GREY, "LeCun et al. 1998"),
    (
        "fashion_mnist",
        "FashionMnist",
        "70,000 pieces of clothing",
        _GREY,
        "Xiao et al. 2017, arXiv:1708.07747",
    ),
    (
        "kmnist",
        "Kmnist",
        "70,000 cursive Japanese characters",
        _GREY,
        "Clanuwat et al. 2018, arXiv:1812.01718",
    ),
    (
        "emnist",
        "Emnist",
        "Handwritten letters and digits in six sets",
        _GREY,
        "Cohen et al. 2017, arXiv:1702.05373",
    ),
    ("cifar10", "Cifar10", "60,000 small photographs in ten classes", _COLOUR, "Krizhevsky 2009"),
    ("svhn", "Svhn", "99,289 house numbers", _COLOUR, "Netzer et al. 2011"),
)


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    for name, cls, summary, form, paper in _SETS:
        options = "EmnistOptions" if name == "emnist" else "TorchvisionOptions"
        register(
            DatasetSpec(
                name=name,
                target=f"vaezoo_torchvision.sets:{cls}Dataset",
                options=f"vaezoo_torchvision.options:{options}",
                summary=f"{summary}, {form}",
                paper=paper,
                tags=("images", "labels", *(("colour",) if form is _COLOUR else ())),
            )
        )
    register(
        DatasetSpec(
            name="celeba",
            target="vaezoo_torchvision.celeba:CelebaDataset",
            options="vaezoo_torchvision.options:CelebaOptions",
            summary="202,599 faces, cut to their centre, 64×64 colour",
            paper="Liu et al. 2015, arXiv:1411.7766",
            tags=("images", "colour"),
        )
    )
