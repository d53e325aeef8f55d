"""The reference plugin: a convolutional variational autoencoder. Read plugin.py, then model.py."""
