"""The reference plugin, a convolutional VAE: read plugin.py, then model.py."""
