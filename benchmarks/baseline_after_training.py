"""The plain side of `after_training.py`: the same modules in the loops that one writes by hand."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from after_training_job import run_task, scaled
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

import vaezoo
from vaezoo import BaseVAE

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH, WORKERS = 256, 2
SHAPE = (1, 32, 32)


def load_model(args: Namespace, name: str, **options: object) -> BaseVAE:
    model = vaezoo.create_model(name, SHAPE, **options)
    model.load_state_dict(load_file(args.folder / name / "model.safetensors"))
    return model.to(DEVICE).eval()


def vanilla(args: Namespace) -> BaseVAE:
    return load_model(args, "vanilla", hidden=(32, 64, 128), latent_dim=16)


def images(args: Namespace) -> Tensor:
    """The same training images as vaezoo has: the first three quarters in the order of a seed."""
    found = np.load(args.folder / "images.npz")["images"]
    return torch.from_numpy(found[: 3 * len(found) // 4])


def likelihood(args: Namespace) -> Callable[[], object]:
    model, x = vanilla(args), images(args)[:16].to(DEVICE).float() / 255
    each = scaled(args, 1000)

    @torch.no_grad()
    def measured() -> Tensor:
        parts = []
        for one in x.split(1):
            q, p = model.encode(one), model.prior()
            found = []
            for _ in range(5):
                z = q.sample(torch.Size((each,)))
                log_px = model.decode(z.flatten(0, 1)).log_prob(one.expand(each, *SHAPE))
                found.append(log_px + (p.log_prob(z) - q.log_prob(z)).flatten())
            parts.append(torch.cat(found).logsumexp(0) - math.log(5 * each))
        return torch.stack(parts)

    return measured


def fid(args: Namespace) -> Callable[[], object]:
    from scipy.linalg import sqrtm  # type: ignore[import-untyped]

    from vaezoo_fidelity.classifier import Classifier

    model, network = vanilla(args), Classifier(1, [3]).to(DEVICE).eval()
    real = DataLoader(TensorDataset(images(args)[:10_000]), batch_size=BATCH)

    @torch.no_grad()
    def measured() -> float:
        a = torch.cat([network(x.to(DEVICE).float() / 255).cpu() for (x,) in real]).numpy()
        b = torch.cat([network(model.sample(BATCH)).cpu() for _ in range(40)]).numpy()
        root = sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
        spread = np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root)
        return float(((a.mean(0) - b.mean(0)) ** 2).sum() + spread)

    return measured


def encode(args: Namespace) -> Callable[[], object]:
    model = vanilla(args)

    @torch.no_grad()
    def measured() -> None:
        batches = DataLoader(TensorDataset(images(args)), batch_size=BATCH)
        found = [model.encode(x.to(DEVICE).float() / 255).mean.cpu() for (x,) in batches]
        np.savez(args.folder / "plain.npz", mean=torch.cat(found).numpy())

    return measured


def sample(args: Namespace) -> Callable[[], object]:
    model = vanilla(args)

    @torch.no_grad()
    def measured() -> Tensor:
        return torch.cat(
            [model.sample(BATCH).cpu() for _ in range(scaled(args, 20_000) // BATCH + 1)]
        )

    return measured


class Files(Dataset[Tensor]):
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        steps = [transforms.Resize(64), transforms.CenterCrop(64), transforms.PILToTensor()]
        self.steps = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        with Image.open(self.paths[i]) as image:
            return self.steps(image.convert("RGB"))


def folder(args: Namespace) -> Callable[[], object]:
    files = Files(sorted(args.images.rglob("*.jpg")))

    def measured() -> Tensor:
        return torch.cat(list(DataLoader(files, batch_size=BATCH, num_workers=WORKERS)))

    return measured


class Prior(nn.Module):
    """A transformer of torch over 64 codes, of the size of vaezoo's."""

    def __init__(self, codes: int, length: int, width: int, layers: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(length, width))
        self.embedding = nn.Embedding(codes, width)
        block = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, codes)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, indices: Tensor) -> Tensor:
        start = self.start.expand(len(indices), -1, -1)
        x = torch.cat([start, self.embedding(indices[:, :-1])], 1) + self.position
        return self.head(self.blocks(x, mask=self.mask, is_causal=True))


def prior(args: Namespace) -> Callable[[], object]:
    model = load_model(args, "vq_vae", sampler="none", network="conv", hidden=(32, 64))
    x = images(args)

    def measured() -> None:
        with torch.no_grad():
            batches = DataLoader(TensorDataset(x), batch_size=BATCH)
            found = [model.encode(x.to(DEVICE).float() / 255).indices for (x,) in batches]
        codes = torch.cat(found).flatten(1)
        network = Prior(512, codes.shape[1], 64, 3).to(DEVICE)
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.9, 0.95))
        loader = DataLoader(TensorDataset(codes), batch_size=64, shuffle=True)
        for _, (batch,) in zip(range(scaled(args, 300)), loader, strict=False):
            loss = F.cross_entropy(network(batch).flatten(0, 1), batch.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return measured


if __name__ == "__main__":
    run_task(likelihood, fid, encode, sample, folder, prior)
