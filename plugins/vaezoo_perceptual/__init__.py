"""Perceptual and adversarial losses for reconstructions of images."""
