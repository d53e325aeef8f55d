"""Data sets of files: folders of images, arrays, and the sets that torchvision knows."""
