"""The bottleneck `point`: the latent of a deterministic autoencoder."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from vaezoo import Bottleneck, LatentOptions
from vaezoo.models.distributions import Delta, to_float32


class PointBottleneck(Bottleneck):
    """q(z|x) is a point mass at what the encoder gives.

    Trained to reconstruct, this is the autoencoder of Hinton & Salakhutdinov (2006). Nothing
    constrains the distribution of its latents: the decoder was trained on hardly any sample of a
    standard Gaussian, and decodes it to noise. So an autoencoder reconstructs better than a VAE of
    the same size, and does not generate. With a density fitted to the latents after training
    (`--sampler gaussian_mixture`) the same decoder generates recognisable images. Ghosh et al.
    (2019) call this ex-post density estimation, and use a smooth decoder (`rae`).

    It has no rate and hence no ELBO: compare it by its reconstructions.
    """

    def __init__(self, options: LatentOptions, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options, options.choose_grid(grid))
        self.num_params = options.num_latents
        self.latent_shape = (options.num_latents, *self.grid)

    def forward(self, params: Tensor) -> Distribution:
        return Delta(to_float32(params), len(self.latent_shape))
