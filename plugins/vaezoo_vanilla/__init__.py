"""The reference plugin, a convolutional VAE: read plugin.py, bottleneck.py, then loss.py."""
