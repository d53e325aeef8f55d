"""The sampler `autoregressive`: a transformer over the indices of codes."""

from __future__ import annotations

from torch import Tensor

from vaezoo import LatentSpec, Sampler
from vaezoo.errors import OptionError
from vaezoo.models.bottleneck import Codebook
from vaezoo_samplers.fitting import check_classes, check_labels

from .distributions import CodePrior, codebook_sections
from .options import AutoregressiveOptions
from .transformer import CodeTransformer


class AutoregressiveSampler(Sampler):
    """p(indices) = Π p(index | indices before it), in raster order (van den Oord et al. 2017, 3.3).

    A transformer in place of their PixelCNN. Several codebooks follow one another: all positions of
    the first, then those of the next. Until it is fitted it is uniform.

    With `conditional` it is p(indices | class); the class is dropped from a part of the examples,
    so that it is p(indices) without a class.
    """

    options: AutoregressiveOptions

    def __init__(self, options: AutoregressiveOptions, latent: LatentSpec) -> None:
        super().__init__(options, latent)
        codebook = latent.codebook
        if codebook is None:
            raise OptionError("--sampler autoregressive is for codes of a codebook")
        check_classes(options.conditional, latent)
        self.grid, self.conditional = latent.shape[1:], options.conditional
        # Not a submodule: its weights are the bottleneck's.
        self._codebook: list[Codebook] = [codebook]
        self.network = CodeTransformer(
            codebook.num_codes,
            codebook_sections(codebook, latent.shape),
            options.prior_width,
            options.prior_layers,
            num_classes=latent.num_classes if options.conditional else 0,
        )

    @property
    def is_fitted(self) -> bool:
        return bool(self.network.head.weight.any())

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        options = self.options
        if not options.prior_steps:
            return
        labels = check_labels(latents, y) if self.conditional else None
        dropout = options.label_dropout
        self.network.fit(latents.flatten(1), options.prior_steps, labels, dropout)

    def distribution(self, y: Tensor | None = None) -> CodePrior:
        y = y if self.conditional else None
        return CodePrior(self._codebook[0], self.grid, self.network.start, self.network, y=y)
