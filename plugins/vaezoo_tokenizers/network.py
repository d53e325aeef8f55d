"""The networks `ldm` and `dc_ae`: encoders and decoders of tokenizers, for images."""

from __future__ import annotations

from torch import nn

from vaezoo import DataSpec
from vaezoo.errors import DataError
from vaezoo.nn.scaling import rescaling
from vaezoo_networks.grid import GridNetwork

from . import dc_ae, efficientvit, ldm
from .dc_ae import DCAEDecoder, DCAEEncoder, DCAEStructure
from .ldm import LDMDecoder, LDMEncoder, Structure
from .options import DCAEOptions, LDMOptions


class _LevelsNetwork(GridNetwork):
    """A network of levels, each half as large as the one above, whose factor divides the sizes."""

    def _set_grid(self, name: str, levels: int) -> None:
        """Set `latent_grid`, of a network that halves the size levels - 1 times.

        DataError for a size that its factor does not divide.
        """
        factor, sizes = 2 ** (levels - 1), self.data.spatial_shape
        if any(size % factor for size in sizes):
            fits = sorted({max(factor, size // factor * factor) for size in sizes})
            raise DataError(
                f"network {name} with {levels} levels takes images whose sides are multiples of "
                f"{factor}, as {' and '.join(map(str, fits))}, not {'×'.join(map(str, sizes))}: "
                "give another --image-size, or fewer levels with --hidden"
            )
        self.latent_grid = tuple(size // factor for size in sizes)


class LDMNetwork(_LevelsNetwork):
    """Residual blocks with GroupNorm and SiLU, and attention at the lowest level.

    Rombach et al. 2022, appendix E.1, after Esser et al. 2021, table 7. The factor between the
    sizes of the examples and of the grid is 2 ** (levels - 1). Examples in [0, 1] are mapped to
    [-1, 1] by the first layer, so that the weights are those of such examples. DataError for a size
    that the factor does not divide.
    """

    options: LDMOptions
    block_kinds = (ldm.ResidualBlock, ldm.Attention)

    def __init__(self, options: LDMOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.structure = Structure(
            options.hidden,
            options.layers_per_block,
            options.norm_groups,
            options.attention,
            options.attention_levels,
        )
        self._set_grid("ldm", len(options.hidden))

    def grid_encoder(self, channels: int) -> nn.Module:
        body = LDMEncoder(
            self.structure,
            self.data.channels,
            channels,
            rescale=rescaling(self.data),
            quant_conv=self.options.quant_conv,
            quant_width=self.options.quant_width,
        )
        return self.checkpointed(body)

    def grid_decoder(self, channels: int, out_shape: tuple[int, ...]) -> nn.Module:
        body = LDMDecoder(
            self.structure,
            channels,
            out_shape[0],
            post_quant_conv=self.options.post_quant_conv,
            quant_width=self.options.quant_width,
        )
        return self.checkpointed(body)


class DCAENetwork(_LevelsNetwork):
    """Residual and EfficientViT blocks; between levels, shortcuts from space to channels.

    The deep compression autoencoder (Chen et al. 2024). Each layer that changes the size or the
    number of channels learns the residual of a map without weights: values moved from space to
    channels, whose neighbours are averaged, and back. The factor is 2 ** (levels - 1). Examples in
    [0, 1] are mapped to [-1, 1] by the first layer. DataError for a size that the factor does not
    divide.
    """

    options: DCAEOptions
    block_kinds = (dc_ae.ResidualBlock, efficientvit.EfficientViTBlock)

    def __init__(self, options: DCAEOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.structure = DCAEStructure(
            options.hidden,
            options.attention(),
            options.head_dim,
            options.attention_scales,
            options.downsample,
            options.upsample,
        )
        self._set_grid("dc_ae", len(options.hidden))

    def grid_encoder(self, channels: int) -> nn.Module:
        body = DCAEEncoder(
            self.structure,
            self.data.channels,
            channels,
            self.options.layers(self.options.encoder_layers),
            rescale=rescaling(self.data),
        )
        return self.checkpointed(body)

    def grid_decoder(self, channels: int, out_shape: tuple[int, ...]) -> nn.Module:
        body = DCAEDecoder(
            self.structure,
            channels,
            out_shape[0],
            self.options.layers(self.options.decoder_layers),
            batch_norm_levels=self.options.batch_norm_levels,
        )
        return self.checkpointed(body)
