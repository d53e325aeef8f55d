"""Numbers and names of metrics as the page writes them."""

from __future__ import annotations

_UPPER = ("elbo", "mse", "psnr", "ssim", "ms", "fid", "kid", "mig", "sap", "dci", "kl")
_DISPLAY = {word: word.upper() for word in _UPPER} | {
    "r2": "R²",
    "factor_vae_score": "FactorVAE score",
}


def display_name(name: str) -> str:
    """A metric's name for people: `bits_per_dim` is bits per dim, `elbo` is ELBO."""
    if name in _DISPLAY:
        return _DISPLAY[name]
    return " ".join(_DISPLAY.get(word, word) for word in name.split("_"))


def format_number(value: float, digits: int = 5) -> str:
    """A number with so many significant digits, thousands separated, and a true minus sign."""
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.{digits}g}"
    return text.replace("-", "−")
