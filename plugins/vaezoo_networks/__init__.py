"""Networks: strided convolutions, residual blocks, dense layers."""
