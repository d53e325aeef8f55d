"""Names of metrics and terms as people write them."""

from __future__ import annotations

_WORDS = ("elbo", "mse", "psnr", "ssim", "ms", "fid", "kid", "mig", "sap", "dci", "kl")
_SPELLED = {word: word.upper() for word in _WORDS} | {
    "r2": "R²",
    "factor_vae_score": "FactorVAE score",
}


def spelled(name: str) -> str:
    """`bits_per_dim` is bits per dim, `reconstruction_r2` is reconstruction R²."""
    if name in _SPELLED:
        return _SPELLED[name]
    return " ".join(_SPELLED.get(word, word) for word in name.split("_"))
