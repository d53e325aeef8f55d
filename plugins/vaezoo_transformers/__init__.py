"""Transformers over patches of images: the network `vit`, the models `vit_vae` and `titok`."""
