"""The aggregate posterior q(z) = mean over the data of q(z|x), estimated from a batch.

Chen et al. 2018, section 4 and appendix C: each sample z_i ~ q(z|x_i) of a batch is evaluated under
every posterior of the batch; weights account for the N training examples outside the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaezoo.distributed import all_gather
from vaezoo.errors import OptionError
from vaezoo.models.distributions import BaseDistribution, independent

from .options import Estimator


class Decomposition(NamedTuple):
    """The single-sample KL of each example in three parts, in nats: [batch] each.

    They add up to log q(z|x) - log p(z) (Chen et al. 2018, equation 2), whatever the weights.
    """

    mutual_information: Tensor
    total_correlation: Tensor
    dimension_kl: Tensor


def gather_posteriors(posterior: Distribution) -> Distribution:
    """The posteriors of all processes' examples; OptionError as in `pairwise_log_prob`."""
    base = _independent(posterior).base_dist
    parameters = {
        name: all_gather(vars(base)[name]) for name in base.arg_constraints if name in vars(base)
    }
    family: Callable[..., Distribution] = type(base)
    # A BaseDistribution never validates.
    off = {} if isinstance(base, BaseDistribution) else {"validate_args": False}
    return independent(family(**parameters, **off), len(posterior.event_shape))


def pairwise_log_prob(posterior: Distribution, z: Tensor) -> Tensor:
    """log q(z_id | x_j) for latent d of sample i under posterior j: [batch, batch, latents].

    z: [batch, *latent_shape]. OptionError when the posterior's latents are not independent.
    """
    log_prob: Tensor = _independent(posterior).base_dist.log_prob(z.unsqueeze(1))
    return log_prob.flatten(2)


def importance_weights(estimator: Estimator, batch: int, examples: int) -> tuple[float, float]:
    """The weights in q(z) of a sample's own posterior and of each other one in the batch.

    stratified: unbiased. One of the N examples is the sample's own, with weight 1/N; the others in
        the batch share the rest evenly. (Chen et al. 2018, appendix C.2, give one of them less: as
        they are exchangeable, any split has the same mean, and the even one the least variance.)
        In a batch of one the own posterior has all the weight.
    weighted: 1 / (N · batch) each (equation 3): biased, log q(z) is too low on average.
    """
    if estimator == "weighted":
        return 1 / (examples * batch), 1 / (examples * batch)
    if batch == 1:
        return 1.0, 0.0
    return 1 / examples, (1 - 1 / examples) / (batch - 1)


def decompose(log_pairs: Tensor, weights: tuple[float, float], log_prior: Tensor) -> Decomposition:
    """Index-code mutual information, total correlation and dimension-wise KL at each sample.

    log_pairs: from `pairwise_log_prob`. weights: from `importance_weights`. log_prior: log p(z) of
    each sample, [batch].
    """
    own, other = weights
    log_weights = torch.full_like(log_pairs[:, :, 0], other).fill_diagonal_(own).log()
    # The weight of an example enters the joint density once, and each marginal once.
    joint = log_pairs.sum(2)
    log_joint = torch.logsumexp(log_weights + joint, 1)
    log_marginals = torch.logsumexp(log_weights.unsqueeze(2) + log_pairs, 1).sum(1)
    return Decomposition(
        mutual_information=joint.diagonal() - log_joint,
        total_correlation=log_joint - log_marginals,
        dimension_kl=log_marginals - log_prior,
    )


def _independent(posterior: Distribution) -> Independent[Distribution]:
    if isinstance(posterior, Independent) and not posterior.base_dist.event_shape:
        return posterior
    raise OptionError(
        "the total correlation needs a posterior of independent latents, and this model's is "
        f"{type(posterior).__name__}: train it with another --loss"
    )
