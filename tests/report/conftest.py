"""Two small runs that the tests of the report look at."""

from __future__ import annotations

from pathlib import Path

import pytest

import vaezoo


@pytest.fixture(scope="package")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("runs")
    for name, options in (("first", {"beta": 1}), ("second", {"beta": 4, "latent_dim": 5})):
        vaezoo.train(
            "vanilla",
            data="sprites",
            out=home / name,
            **{"latent_dim": 4, **options},
            examples=120,
            test=40,
            image_size=16,
            hidden=(8, 8),
            epochs=3,
            batch_size=16,
            device="cpu",
        )
    return home / "first", home / "second"
