"""What tests of shards behind an address share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data_pipeline.shard_servers import ShardServer, serving


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait little between attempts, and reach the local server past any proxy."""
    monkeypatch.setattr("data_pipeline.remote.FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(shards: Path) -> Iterator[ShardServer]:
    """Serve the set that the test module's fixture `shards` packs."""
    with serving(shards) as running:
        yield running
