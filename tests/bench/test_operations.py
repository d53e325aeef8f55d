"""The operations of a training step do not become more: on a GPU their number is the time.

Forward, backward and optimizer, without views. A change that needs more must raise the limit here.
"""

from __future__ import annotations

import pytest

from vaezoo.bench.counts import count
from vaezoo.plugins.registry import registry
from vaezoo.testing.subjects import ModelWithLoss

OURS = [s.name for s in registry().specs("model") if registry().plugin(s).distribution == "vaezoo"]
LIMITS = {
    "aae": 227,
    "autoencoder": 115,
    "autoencoder_kl": 330,
    "beta_tc": 266,
    "capacity": 190,
    "cvae": 218,
    "dc_ae": 679,
    "dip_vae": 224,
    "factor_vae": 269,
    "fsq": 275,
    "gumbel_vae": 193,
    "iaf": 367,
    "info_vae": 246,
    "iwae": 176,
    "ladder_vae": 684,
    "miwae": 176,
    "rae": 191,
    "sigma_vae": 188,
    "titok": 262,
    "vae_gan": 430,
    "vamp_prior": 298,
    "vanilla": 179,
    "vit_vae": 170,
    "vmf_vae": 790,
    "vq_vae": 290,
    "vq_vae_2": 429,
    "vqgan": 362,
    "wae_mmd": 313,
}

MOST = 800
"""The limit of a model that is not in the table."""


@pytest.mark.parametrize("name", OURS)
def test_a_step_has_no_more_operations(name: str) -> None:
    pair = ModelWithLoss(name)
    batch, step = pair.batch(), pair.train_step(pair.build(), 2, pair.train_options)
    step(batch, pair.context(0, 2), 0)  # creates the state of the optimizers
    found = count(lambda: step(batch, pair.context(1, 2), 1)).operations
    assert found <= LIMITS.get(name, MOST)
    assert found > 0.9 * LIMITS.get(name, 0), "lower the limit"
