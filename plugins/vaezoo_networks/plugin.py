"""Registration of the networks. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, NetworkSpec, hookimpl


@hookimpl
def register_networks(register: Callable[[NetworkSpec], None]) -> None:
    for name, other_names, target, options, summary, paper, tags, takes in (
        (
            "conv",
            ("cnn", "convnet", "convolutional", "dcgan"),
            "convolutional:ConvNetwork",
            "ConvOptions",
            "Strided convolutions with batch norm",
            "",
            ("convolutional", "grid"),
            InputSpec(ndims=(1, 2, 3)),
        ),
        (
            "resnet",
            ("residual", "resnet18"),
            "convolutional:ResNetwork",
            "ConvOptions",
            "Strided convolutions, each followed by a residual block",
            "He et al. 2016, arXiv:1603.05027",
            ("convolutional", "grid"),
            InputSpec(ndims=(1, 2, 3)),
        ),
        (
            "mlp",
            ("dense", "linear", "fullyconnected", "fc"),
            "dense:MLPNetwork",
            "MLPOptions",
            "Dense layers with ReLU, for data of any shape",
            "",
            (),
            InputSpec(ndims=(0, 1, 2, 3)),
        ),
        (
            "gated_mlp",
            ("glu", "gatedlinear"),
            "dense:GatedMLPNetwork",
            "MLPOptions",
            "Gated dense layers, for data of any shape",
            "Dauphin et al. 2016, arXiv:1612.08083",
            (),
            InputSpec(ndims=(0, 1, 2, 3)),
        ),
    ):
        register(
            NetworkSpec(
                name=name,
                other_names=other_names,
                target=f"vaezoo_networks.{target}",
                options=f"vaezoo_networks.options:{options}",
                summary=summary,
                paper=paper,
                tags=tags,
                input_spec=takes,
                default=name == "conv",
            )
        )
