"""What tests of benchmarks share."""

import threading
from collections.abc import Iterator

import pytest

from tests.benchmarking.judge_server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()
