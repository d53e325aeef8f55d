"""pythae's trainer with the tutorial's encoder and decoder on tensors. Prints one JSON object."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time

import numpy as np
import torch
from baseline_tutorial import HIDDEN, TutorialVAE
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig


class Encoder(BaseEncoder):
    def __init__(self, network: TutorialVAE) -> None:
        super().__init__()
        self.body = network.encoder
        self.mean, self.logvar = network.mean, network.logvar

    def forward(self, x: torch.Tensor) -> ModelOutput:
        features = self.body(2 * x - 1).flatten(1)
        return ModelOutput(embedding=self.mean(features), log_covariance=self.logvar(features))


class Decoder(BaseDecoder):
    def __init__(self, network: TutorialVAE) -> None:
        super().__init__()
        self.start, self.body = network.start, network.decoder

    def forward(self, z: torch.Tensor) -> ModelOutput:
        decoded = self.body(self.start(z).view(-1, HIDDEN[-1], 2, 2))
        return ModelOutput(reconstruction=(decoded + 1) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--array", required=True, help="an .npz with x: uint8 [n, 3, 64, 64]")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    with np.load(args.array) as arrays:
        images = torch.from_numpy(arrays["x"]).float() / 255
    network = TutorialVAE()
    config = VAEConfig(input_dim=(3, 64, 64), latent_dim=128, reconstruction_loss="mse")
    model = VAE(config, encoder=Encoder(network), decoder=Decoder(network))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = BaseTrainer(
            model,
            BaseDataset(images, torch.zeros(len(images))),
            training_config=BaseTrainerConfig(
                output_dir=folder,
                num_epochs=args.epochs,
                per_device_train_batch_size=args.batch_size,
                learning_rate=1e-3,
            ),
        )
        begun = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begun
    print(json.dumps({"images_per_second": args.epochs * len(images) / seconds}))


if __name__ == "__main__":
    main()
