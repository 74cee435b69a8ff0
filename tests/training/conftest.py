"""Phantoms and a short run that the tests of training share."""

from pathlib import Path

import pytest

from brainseg.data import write_phantoms
from brainseg.training import TrainConfig
from brainseg.training.config import DataConfig, ModelConfig, OptimizerConfig


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Twelve patients of five slices each; three validate."""
    root = tmp_path_factory.mktemp("data")
    write_phantoms(root / "lgg", patients=12, slices=5, size=64)
    return DataConfig(root=str(root / "lgg"), cache_dir=str(root / "cache"), batch_size=4)


@pytest.fixture(scope="session")
def config(data: DataConfig) -> TrainConfig:
    """Two epochs of the smallest network, with all of its randomness on."""
    return TrainConfig(
        model=ModelConfig(name="unext_tiny", arguments={"drop": 0.1, "drop_path": 0.1}),
        data=data,
        optimizer=OptimizerConfig(lr=3e-3),
        epochs=2,
        accelerator="cpu",
        devices=1,
    )


@pytest.fixture(scope="session")
def run(data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    from brainseg.training import train

    folder = tmp_path_factory.mktemp("runs") / "run"
    model = ModelConfig(name="unext_tiny")
    optimizer = OptimizerConfig(lr=1e-2)
    train(TrainConfig(model=model, data=data, optimizer=optimizer, epochs=4, accelerator="cpu", devices=1), folder)
    return folder
