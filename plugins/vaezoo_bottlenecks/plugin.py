"""Registration of the bottlenecks. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import BottleneckSpec, hookimpl


@hookimpl
def register_bottlenecks(register: Callable[[BottleneckSpec], None]) -> None:
    for name, classes, options, summary, paper, tags in (
        (
            "full_gaussian",
            "full_gaussian:FullGaussian",
            "vaezoo_bottlenecks.options:FullGaussianOptions",
            "Gaussian posterior with full covariance, by a Cholesky factor",
            "Kingma & Welling 2019, arXiv:1906.02691",
            (),  # not "gaussian": that says that mean and stddev are the whole posterior
        ),
        (
            "laplace",
            "laplace:Laplace",
            "vaezoo:GaussianOptions",
            "Laplace posterior and prior: sparse latents, with the KL in closed form",
            "Kingma & Welling 2013, arXiv:1312.6114",
            (),
        ),
        (
            "student_t",
            "student_t:StudentT",
            "vaezoo_bottlenecks.options:StudentTOptions",
            "Student's t posterior and prior: heavy tails, the same in both",
            "Abiri & Ohlsson 2020, arXiv:2004.02581",
            (),
        ),
        (
            "planar_flow",
            "planar_flow:PlanarFlow",
            "vaezoo_bottlenecks.options:FlowOptions",
            "Gaussian posterior moved by planar flows, with parameters from the encoder",
            "Rezende & Mohamed 2015, arXiv:1505.05770",
            ("flow",),
        ),
        (
            "radial_flow",
            "radial_flow:RadialFlow",
            "vaezoo_bottlenecks.options:FlowOptions",
            "Gaussian posterior moved by radial flows, with parameters from the encoder",
            "Rezende & Mohamed 2015, arXiv:1505.05770",
            ("flow",),
        ),
    ):
        register(
            BottleneckSpec(
                name=name,
                target=f"vaezoo_bottlenecks.{classes}Bottleneck",
                options=options,
                summary=summary,
                paper=paper,
                tags=("elbo", "importance", *tags),
            )
        )
