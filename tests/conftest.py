import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread_and_seed():
    """Every test starts from the same random state; tiny models are faster on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
