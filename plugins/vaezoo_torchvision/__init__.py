"""Data sets of torchvision: MNIST and its relatives, CIFAR-10, SVHN and CelebA."""
