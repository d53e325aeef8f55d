"""Registration of the data sets that are read from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vaezoo import DatasetSpec, hookimpl

_TRAIN_OPTIONS = {"schedule": "cosine"}
"""At a constant rate the last steps move a learned scale about, and samples of a small table vary a
tenth less than its values; with this schedule less than a twentieth."""

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

_IDX = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
_IDX += "t10k-labels-idx1-ubyte (or .gz) from {}, into DIR/{}/raw"

FILES: Mapping[str, str] = {
    "mnist": _IDX.format("https://ossci-datasets.s3.amazonaws.com/mnist/", "MNIST"),
    "fashion_mnist": _IDX.format(
        "https://github.com/zalandoresearch/fashion-mnist", "FashionMNIST"
    ),
    "kmnist": _IDX.format("http://codh.rois.ac.jp/kmnist/", "KMNIST"),
    "emnist": "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip, unpacked in DIR: "
    "DIR/gzip/emnist-balanced-train-images-idx3-ubyte.gz and so on",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz, unpacked into DIR: "
    "DIR/cifar-10-batches-py/data_batch_1 and so on",
    "svhn": "train_32x32.mat and test_32x32.mat from http://ufldl.stanford.edu/housenumbers/, "
    "into DIR/SVHN",
    "celeba": "img_align_celeba.zip and list_eval_partition.txt from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html; unpack the first to "
    "DIR/celeba/img_align_celeba/000001.jpg and so on, and put the second into DIR/celeba",
}
"""For each data set: the files to fetch by hand, where they come from, and where they go."""


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    register(
        DatasetSpec(
            name="folder",
            target="vaezoo_files.folder:FolderDataset",
            options="vaezoo_files.options:FolderOptions",
            summary="Any tree of images, a folder a class or flat: give --root",
            tags=("images", "files", "directory"),
        )
    )
    register(
        DatasetSpec(
            name="npz",
            target="vaezoo_files.npz:NpzDataset",
            options="vaezoo_files.options:NpzOptions",
            summary="Vectors, signals, images or volumes in an .npz or .npy file: give --root",
            tags=("images", "vectors", "signals", "volumes", "tables", "files", ".npz", ".npy"),
            train_options=_TRAIN_OPTIONS,
        )
    )
    register(
        DatasetSpec(
            name="arrays",
            target="vaezoo_files.arrays:ArraysDataset",
            options="vaezoo_files.options:ArrayOptions",
            summary="Arrays, tensors, a torch Dataset or Splits, given from Python",
            tags=("images", "vectors", "signals", "volumes", "tables", "python"),
            train_options=_TRAIN_OPTIONS,
            accepts=(
                "numpy.ndarray",
                "torch.Tensor",
                "torch.utils.data.dataset.Dataset",
                "vaezoo.data.base.Splits",
            ),
        )
    )
    register(
        DatasetSpec(
            name="table",
            target="vaezoo_files.table:TableDataset",
            options="vaezoo_files.options:TableOptions",
            summary="Numbers and categories by column, in a .csv or .parquet file: give --root",
            tags=("vectors", "tables", "files", ".csv", ".tsv", ".txt", ".parquet"),
            train_options=_TRAIN_OPTIONS,
            accepts=(
                "pandas.DataFrame",
                "pandas.core.frame.DataFrame",
                "polars.dataframe.frame.DataFrame",
            ),
        )
    )
    for name, cls, summary, form, paper in _SETS:
        options = "EmnistOptions" if name == "emnist" else "TorchvisionOptions"
        register(
            DatasetSpec(
                name=name,
                target=f"vaezoo_files.torchvision_sets:{cls}Dataset",
                options=f"vaezoo_files.options:{options}",
                summary=f"{summary}, {form}",
                paper=paper,
                files=FILES[name],
                tags=("images", "labels", *(("colour",) if form is _COLOUR else ())),
            )
        )
    register(
        DatasetSpec(
            name="celeba",
            target="vaezoo_files.celeba:CelebaDataset",
            options="vaezoo_files.options:CelebaOptions",
            summary="202,599 faces, cut to their centre, 64×64 colour",
            paper="Liu et al. 2015, arXiv:1411.7766",
            files=FILES["celeba"],
            tags=("images", "colour"),
        )
    )
