"""Options of the losses. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vaezoo import Options

Estimator = Literal["stratified", "weighted"]
Kernel = Literal["imq", "rbf"]


class BetaTCOptions(Options):
    """The weights of the three parts of the KL, and how they are estimated."""

    alpha: float = Field(1.0, ge=0, description="weight of the index-code mutual information")
    beta: float = Field(6.0, ge=0, description="weight of the total correlation")
    gamma: float = Field(1.0, ge=0, description="weight of the dimension-wise KL")
    estimator: Estimator = Field(
        "stratified",
        description="estimator of the aggregate posterior from a batch: stratified: unbiased; "
        "weighted: biased, as in the paper's experiments",
    )


class DIPVAEOptions(Options):
    """The weights of the penalty on the covariance of the latents."""

    dip_type: Literal["i", "ii"] = Field(
        "i",
        description="the covariance that is pulled to the identity: i: of the posterior's means; "
        "ii: of the latents",
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
        """`lambda_d`, or the paper's weight if it is none."""
        if self.lambda_d is not None:
            return self.lambda_d
        return self.lambda_od * (10.0 if self.dip_type == "i" else 1.0)


class MMDOptions(Options):
    """The kernels of the MMD between the aggregate posterior and the prior."""

    kernel: Kernel = Field(
        "imq", description="imq: inverse multiquadratic, with heavy tails; rbf: Gaussian"
    )
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0,),
        min_length=1,
        description="widths of the kernels that are added up; at 1 the squared width is the mean "
        "squared distance of two standard Gaussian samples, twice the latent's size",
    )


class InfoVAEOptions(MMDOptions):
    """The weights of KL and MMD."""

    kernel: Kernel = Field("rbf", description=MMDOptions.model_fields["kernel"].description)
    alpha: float = Field(
        0.0,
        le=1,
        description="information preference: the KL has weight 1 - alpha, so 1 is the MMD-VAE",
    )
    lambda_mmd: float = Field(
        1000.0,
        ge=0,
        description="lambda: the MMD has weight alpha + lambda_mmd - 1",
    )


class WAEMMDOptions(MMDOptions):
    """The kernels and the weight of the MMD."""

    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        min_length=1,
        description=MMDOptions.model_fields["scales"].description,
    )
    lambda_mmd: float = Field(10.0, ge=0, description="weight of the MMD")


class CapacityOptions(Options):
    """The capacity, its schedule, and the weight of the distance from it."""

    capacity: float = Field(25.0, ge=0, description="rate at the end of the schedule, in nats")
    rise: float = Field(
        0.5, ge=0, le=1, description="fraction of the training in which the capacity rises from 0"
    )
    gamma: float = Field(
        1000.0, ge=0, description="weight of the distance between the rate and the capacity"
    )
