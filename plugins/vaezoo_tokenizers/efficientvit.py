"""Blocks of EfficientViT with linear attention, and their norm (Cai et al. 2023; Xie et al. 2024).

Their submodules have the names that diffusers gives to the same layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo_discrete.quantizer import no_autocast

_NORM_EPS = 1e-5
_ATTENTION_EPS = 1e-15
"""Added to the sum of the weights, which is 0 where a query is 0."""
_EXPANSION = 4
"""The inner width of the feed-forward part, divided by the width of the block."""


class ChannelRMSNorm(nn.Module):
    """weight · x / √(mean of x² over the channels) + bias (Zhang & Sennrich 2019, equation 4).

    [batch, channels, h, w] -> the same shape. Unlike `nn.RMSNorm` it has a bias.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean_square = x.float().square().mean(1, keepdim=True)
        scaled = x * (mean_square + _NORM_EPS).rsqrt().to(x.dtype)
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


class Neighbourhood(nn.Module):
    """Queries, keys and values of a neighbourhood: a depthwise convolution, then one in groups.

    [batch, 3 · heads · head_dim, h, w] -> the same shape (Cai et al. 2023, figure 2).
    """

    def __init__(self, channels: int, heads: int, kernel_size: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.proj_in = nn.Conv2d(
            channels, channels, kernel_size, padding=padding, groups=channels, bias=False
        )
        self.proj_out = nn.Conv2d(channels, channels, 1, groups=3 * heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj_out(self.proj_in(x))


class LinearAttention(nn.Module):
    """x + norm(W · attention of x over all positions), linear in their number.

    The weight of position j at position i is relu(q_i)·relu(k_j), divided by its sum over j (Cai et
    al. 2023, equation 1): so that the sum over j of v_j relu(k_j)ᵀ is computed once.

    [batch, channels, h, w] -> the same shape. head_dim: channels of a head; there are channels //
    head_dim heads, and at least one. scales: odd widths of neighbourhoods; each gives as many heads
    more.

    The outputs of to_q, to_k and to_v stand side by side, and each three consecutive parts of
    head_dim channels are the query, the key and the value of a head. So to_q alone does not give
    the queries: the published weights are for this order.
    """

    def __init__(self, channels: int, head_dim: int, scales: Sequence[int] = ()) -> None:
        super().__init__()
        self.head_dim = head_dim
        heads = max(1, channels // head_dim)
        inner = heads * head_dim
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(channels, inner, bias=False)
        self.to_v = nn.Linear(channels, inner, bias=False)
        self.to_qkv_multiscale = nn.ModuleList(
            Neighbourhood(3 * inner, heads, size) for size in scales
        )
        self.to_out = nn.Linear(inner * (1 + len(scales)), channels, bias=False)
        self.norm_out = ChannelRMSNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.movedim(1, -1)
        three = torch.cat([self.to_q(rows), self.to_k(rows), self.to_v(rows)], -1).movedim(-1, 1)
        scales = [three, *(layer(three) for layer in self.to_qkv_multiscale)]
        heads = torch.cat(scales, 1).flatten(2).unflatten(1, (-1, 3, self.head_dim))
        found = linear_attention(*heads.unbind(2)).to(
            x.dtype
        )  # [batch, heads, head_dim, positions]
        out = self.to_out(found.flatten(1, 2).mT).mT.unflatten(2, x.shape[2:])
        return x + self.norm_out(out)


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Σ_j v_j relu(q_i)·relu(k_j) / Σ_j relu(q_i)·relu(k_j), in float32; 0 where the sum is 0.

    q, k, v: [..., head_dim, positions] -> [..., head_dim, positions].
    """
    with no_autocast(q.device):
        q, k, v = F.relu(q.float()), F.relu(k.float()), v.float()
        total = k.sum(-1).unsqueeze(-2) @ q
        return (v @ k.mT @ q) / (total + _ATTENTION_EPS)


class GatedConvolution(nn.Module):
    """x + norm(f(x)), f a gated block with a depthwise convolution of width 3 (Xie et al. 2024).

    [batch, channels, h, w] -> the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = _EXPANSION * channels
        self.conv_inverted = nn.Conv2d(channels, 2 * inner, 1)
        self.conv_depth = nn.Conv2d(2 * inner, 2 * inner, 3, padding=1, groups=2 * inner)
        self.conv_point = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm = ChannelRMSNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.conv_depth(F.silu(self.conv_inverted(x))).chunk(2, 1)
        return x + self.norm(self.conv_point(values * F.silu(gates)))


class EfficientViTBlock(nn.Module):
    """LinearAttention, then GatedConvolution: [batch, channels, h, w] -> the same shape."""

    def __init__(self, channels: int, head_dim: int, scales: Sequence[int] = ()) -> None:
        super().__init__()
        self.attn = LinearAttention(channels, head_dim, scales)
        self.conv_out = GatedConvolution(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.attn(x))
