"""Quantizers beyond one codebook: residual, product, binary, linear, over scales, and soft."""
