"""The reference plugin, a convolutional VAE: read plugin.py, bottleneck.py, options.py, loss.py."""
