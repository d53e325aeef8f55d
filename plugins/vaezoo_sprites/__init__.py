"""The data set sprites: the factor grid of dSprites, drawn by vaezoo, with all factors known."""
