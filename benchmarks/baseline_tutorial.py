"""The tutorial's training as described: one JPEG opened per item, eager float32, loss.item().

Prints one JSON object. Modes: step (one batch over and over), epochs (images from disk to trained
weights, validation at the end).
"""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path

import torch
from harness import tutorial_parser
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

HIDDEN = (32, 64, 128, 256, 512)
KLD_WEIGHT = 0.00025
SIZE = 64
VALUES = 3 * SIZE * SIZE


class Images(Dataset):
    """Opens and transforms a file each time it is asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.Resize(SIZE),
                transforms.CenterCrop(SIZE),
                transforms.ToTensor(),
                transforms.Normalize(0.5, 0.5),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        with Image.open(self.paths[number]) as image:
            return self.transform(image.convert("RGB"))


class TutorialVAE(nn.Module):
    def __init__(self, latent: int = 128) -> None:
        super().__init__()
        down, channels = [], 3
        for wide in HIDDEN:
            down += [
                nn.Conv2d(channels, wide, 3, stride=2, padding=1),
                nn.BatchNorm2d(wide),
                nn.LeakyReLU(),
            ]
            channels = wide
        self.encoder = nn.Sequential(*down)
        self.mean = nn.Linear(HIDDEN[-1] * 4, latent)
        self.logvar = nn.Linear(HIDDEN[-1] * 4, latent)
        self.start = nn.Linear(latent, HIDDEN[-1] * 4)
        up = []
        widths = [*reversed(HIDDEN), HIDDEN[0]]
        for before, wide in itertools.pairwise(widths):
            up += [
                nn.ConvTranspose2d(before, wide, 3, stride=2, padding=1, output_padding=1),
                nn.BatchNorm2d(wide),
                nn.LeakyReLU(),
            ]
        self.decoder = nn.Sequential(*up, nn.Conv2d(HIDDEN[0], 3, 3, padding=1), nn.Tanh())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.encoder(x).flatten(1)
        mean, logvar = self.mean(features), self.logvar(features)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        decoded = self.decoder(self.start(z).view(-1, HIDDEN[-1], 2, 2))
        return decoded, mean, logvar


def loss_of(model: TutorialVAE, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    decoded, mean, logvar = model(x)
    mse = F.mse_loss(decoded, x)
    kld = (-0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1)).mean()
    return mse + KLD_WEIGHT * kld, mse, kld


def elbo(mse: float, kld: float) -> float:
    """Nats under the Gaussian that the tutorial's weight implies: see configs/simpsons.yaml."""
    variance = KLD_WEIGHT * VALUES / 8
    squared = mse / 4 * VALUES  # from [-1, 1] to [0, 1], from the mean to the sum
    distortion = squared / (2 * variance) + VALUES / 2 * math.log(2 * math.pi * variance)
    return -distortion - kld


def train_step(model: TutorialVAE, optimizer: torch.optim.Optimizer, x: Tensor) -> float:
    optimizer.zero_grad()
    loss = loss_of(model, x)[0]
    loss.backward()
    optimizer.step()
    return loss.item()


def sorted_split(root: Path) -> tuple[list[Path], list[Path]]:
    paths = sorted(root.rglob("*.jpg"))
    cut = int(0.75 * len(paths))
    return paths[:cut], paths[cut:]


def main() -> None:
    parser = tutorial_parser(__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--print-steps", action="store_true", help="print the loss of each step")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    model = TutorialVAE().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if args.mode == "step":
        x = torch.rand(args.batch_size, 3, SIZE, SIZE, device=device) * 2 - 1
        for _ in range(5):
            train_step(model, optimizer, x)
        begun = time.perf_counter()
        for _ in range(args.steps):
            train_step(model, optimizer, x)
        rate = args.steps * args.batch_size / (time.perf_counter() - begun)
        print(json.dumps({"images_per_second": rate}))
        return
    training, validation = sorted_split(args.images)
    loader = DataLoader(
        Images(training), args.batch_size, shuffle=True, drop_last=True, num_workers=args.workers
    )
    begun = time.perf_counter()
    for _ in range(args.epochs):
        for x in loader:
            loss = train_step(model, optimizer, x.to(device))
            if args.print_steps:
                print(loss, flush=True)
    seconds = time.perf_counter() - begun
    model.eval()
    sums = torch.zeros(2)
    with torch.no_grad():
        for x in DataLoader(Images(validation), 256, num_workers=args.workers):
            _, mse, kld = loss_of(model, x.to(device))
            sums += torch.tensor([mse.item(), kld.item()]) * len(x)
    mse, kld = (sums / len(validation)).tolist()
    seen = args.epochs * (len(training) // args.batch_size) * args.batch_size
    numbers = {"images_per_second": seen / seconds, "elbo": elbo(mse, kld)}
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
