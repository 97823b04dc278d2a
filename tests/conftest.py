"""What all tests share: one thread each, and no GPU test where there is no GPU."""

import pytest
import torch
from support.tiny_runs import corpus  # noqa: F401 - a fixture of several rooms

pytest.register_assert_rewrite("support.contract")
torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
