"""Data sets of the user's own files: a folder of images, an .npz file of arrays."""
