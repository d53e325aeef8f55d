"""Street View House Numbers, from MATLAB files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vaezoo.data.known import Examples, KnownDataset
from vaezoo.data.matlab import read_arrays
from vaezoo.errors import DataError, printable


class SvhnDataset(KnownDataset):
    """99,289 house numbers, cut out around one digit, 32×32 colour. Netzer et al. 2011, Reading
    Digits in Natural Images with Unsupervised Feature Learning.

    The files give the digit 0 the label 10; here it is 0. The `extra` images are not used.
    """

    name = "svhn"
    folders = ("SVHN", "svhn", ".")

    def class_names(self) -> tuple[str, ...]:
        return tuple("0123456789")

    def files(self) -> Sequence[Sequence[str]]:
        return [("train_32x32.mat",), ("test_32x32.mat",)]

    def read(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        train, test = map(_read_mat, files)
        return train, test

    def fetch(self, folder: Path) -> None:
        from torchvision.datasets import SVHN
        from torchvision.datasets.utils import download_url

        for part in ("train", "test"):
            url, name, md5 = SVHN.split_list[part]
            download_url(url, str(folder), filename=name, md5=md5)


def _read_mat(path: Path) -> Examples:
    try:
        content = read_arrays(path, ("X", "y"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged ({printable(str(error))}): fetch it again") from None
    images, labels = content.get("X"), content.get("y")
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != 3:
        raise DataError(f"{path} has no 8-bit colour images [height, width, 3, n] named X")
    if labels is None or labels.size != images.shape[3] or not np.all(np.isin(labels, range(11))):
        raise DataError(f"{path} has no digits named y, one for each image")
    numbers = torch.from_numpy(labels.astype(np.int64).reshape(-1))
    numbers[numbers == 10] = 0
    return Examples(torch.from_numpy(np.ascontiguousarray(images.transpose(3, 2, 0, 1))), numbers)
