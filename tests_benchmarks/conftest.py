"""What needs lmms-eval: `make test-benchmarks` runs this folder in an environment of its own."""

from pathlib import Path

import pytest
import torch

from tests_benchmarks import schemas


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few questions of every task, in the real data sets' schemas."""
    return schemas.write_all(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What `datasets` writes on the way goes with the tests."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
