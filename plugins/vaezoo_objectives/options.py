"""Options of the objectives. No torch here: names and help are read without it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vaezoo import Options

Estimator = Literal["stratified", "weighted"]
Kernel = Literal["imq", "rbf"]


class BetaTcOptions(Options):
    alpha: float = Field(1.0, ge=0, description="weight of the index-code mutual information")
    beta: float = Field(6.0, ge=0, description="weight of the total correlation")
    gamma: float = Field(1.0, ge=0, description="weight of the dimension-wise KL")
    estimator: Estimator = Field(
        "stratified",
        description="of the aggregate posterior from a batch: stratified: unbiased; weighted: "
        "biased, as in the paper's experiments",
    )


class DipVaeOptions(Options):
    dip_type: Literal["i", "ii"] = Field(
        "i",
        description="whose covariance is to be the identity: i: that of the posterior's means; "
        "ii: that of the latents",
    )
    lambda_od: float = Field(
        10.0, ge=0, description="weight of the squared covariances off the diagonal"
    )
    lambda_d: float | None = Field(
        None,
        ge=0,
        description="weight of the squared distances of the variances from 1; none: as in the "
        "paper, 10 times lambda_od for type i, lambda_od for type ii",
    )

    def diagonal_weight(self) -> float:
        """lambda_d, the paper's where none was given."""
        if self.lambda_d is not None:
            return self.lambda_d
        return self.lambda_od * (10.0 if self.dip_type == "i" else 1.0)


class MmdOptions(Options):
    """The discrepancy between the aggregate posterior and the prior."""

    kernel: Kernel = Field(
        "imq", description="imq: inverse multiquadratic, with heavy tails; rbf: Gaussian"
    )
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0,),
        min_length=1,
        description="widths of the kernels that are added up; at 1 the squared width is that of "
        "the distance between two draws of a standard Gaussian, twice the latent's size",
    )


class InfoVaeOptions(MmdOptions):
    kernel: Kernel = Field("rbf", description=MmdOptions.model_fields["kernel"].description)
    alpha: float = Field(
        0.0,
        le=1,
        description="information preference: 1 - alpha weighs the KL, so that 1 is the MMD-VAE",
    )
    lambda_mmd: float = Field(
        1000.0,
        ge=0,
        description="scaling of the latent's divergence: alpha + lambda_mmd - 1 weighs the MMD",
    )


class WaeMmdOptions(MmdOptions):
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        min_length=1,
        description=MmdOptions.model_fields["scales"].description,
    )
    lambda_mmd: float = Field(10.0, ge=0, description="weight of the MMD")


class CapacityOptions(Options):
    capacity: float = Field(25.0, ge=0, description="nats that the rate is led to, in the end")
    rise: float = Field(
        0.5, ge=0, le=1, description="share of the training over which they rise from 0"
    )
    gamma: float = Field(
        1000.0, ge=0, description="weight of the distance between the rate and the capacity"
    )
