import os
from collections.abc import Iterator

import pytest

from tests.cami2v.training.toys import forget_engine


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test train in the test process, as often as it likes."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    forget_engine()
    yield
    forget_engine()
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
