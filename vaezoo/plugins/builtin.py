"""The plugin of the core: a loss, data sets and a logger. Metrics: vaezoo.evaluation.builtin."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo.plugins.hookspecs import hookimpl
from vaezoo.plugins.specs import DatasetSpec, LoggerSpec, LossSpec


@hookimpl
def register_losses(register: Callable[[LossSpec], None]) -> None:
    register(
        LossSpec(
            name="elbo",
            target="vaezoo.losses.elbo:ELBOLoss",
            options="vaezoo.losses.options:ELBOOptions",
            summary="The negative ELBO with a weight on the KL: distortion + beta · rate",
            paper="Kingma & Welling 2013, arXiv:1312.6114; beta: Higgins et al. 2017",
            tags=("elbo", "beta"),
            requires=("elbo",),
        )
    )


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    register(
        DatasetSpec(
            name="sprites",
            target="vaezoo.data.sprites:SpritesDataset",
            options="vaezoo.data.options:SpritesOptions",
            summary="Three shapes in every size, turn and place: drawn here, factors known",
            paper="after dSprites, Matthey et al. 2017",
            tags=("images", "binary", "factors", "embedded"),
            # Many small steps: what learns most in three minutes on two cores.
            train_options={
                "steps": 2000,
                "batch_size": 16,
                "lr": 3e-3,
                "adam_beta2": 0.95,
                "schedule": "linear",
            },
        )
    )
    for name, target, options, summary, paper, tags in (
        (
            "folder",
            "folder:FolderDataset",
            "FolderOptions",
            "Any tree of images, a folder a class or flat: give --root",
            "",
            ("images", "files"),
        ),
        (
            "npz",
            "arrays:NpzDataset",
            "NpzOptions",
            "Arrays of images or vectors in an .npz file: give --root",
            "",
            ("images", "vectors", "files"),
        ),
        (
            "mnist",
            "torchvision_sets:MnistDataset",
            "TorchvisionOptions",
            "70,000 handwritten digits, 28×28 grey",
            "LeCun et al. 1998",
            ("images", "labels"),
        ),
        (
            "fashion_mnist",
            "torchvision_sets:FashionMnistDataset",
            "TorchvisionOptions",
            "70,000 pieces of clothing, 28×28 grey",
            "Xiao et al. 2017, arXiv:1708.07747",
            ("images", "labels"),
        ),
        (
            "kmnist",
            "torchvision_sets:KmnistDataset",
            "TorchvisionOptions",
            "70,000 cursive Japanese characters, 28×28 grey",
            "Clanuwat et al. 2018, arXiv:1812.01718",
            ("images", "labels"),
        ),
        (
            "emnist",
            "torchvision_sets:EmnistDataset",
            "EmnistOptions",
            "Handwritten letters and digits in six sets, 28×28 grey",
            "Cohen et al. 2017, arXiv:1702.05373",
            ("images", "labels"),
        ),
        (
            "cifar10",
            "torchvision_sets:Cifar10Dataset",
            "TorchvisionOptions",
            "60,000 small photographs in ten classes, 32×32 colour",
            "Krizhevsky 2009",
            ("images", "labels", "colour"),
        ),
        (
            "svhn",
            "torchvision_sets:SvhnDataset",
            "TorchvisionOptions",
            "99,289 house numbers, 32×32 colour",
            "Netzer et al. 2011",
            ("images", "labels", "colour"),
        ),
        (
            "celeba",
            "celeba:CelebaDataset",
            "CelebaOptions",
            "202,599 faces, cut to their centre, 64×64 colour",
            "Liu et al. 2015, arXiv:1411.7766",
            ("images", "colour"),
        ),
    ):
        register(
            DatasetSpec(
                name=name,
                target=f"vaezoo.data.{target}",
                options=f"vaezoo.data.options:{options}",
                summary=summary,
                paper=paper,
                tags=tags,
            )
        )


@hookimpl
def register_loggers(register: Callable[[LoggerSpec], None]) -> None:
    register(
        LoggerSpec(
            name="tensorboard",
            target="vaezoo.training.tensorboard:TensorBoardLogger",
            summary="Event files in the run folder for TensorBoard; needs vaezoo[tensorboard]",
        )
    )
