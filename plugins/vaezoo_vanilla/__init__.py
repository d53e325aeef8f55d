"""The reference plugin, a convolutional VAE: read plugin.py, model.py, then loss.py."""
