"""Read the history of wandb's offline files, which wandb 0.31 only sends: LevelDB's log format, protobuf inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from wandb.proto import wandb_internal_pb2 as messages

BLOCK, FILE_HEADER, HEADER = 32768, 7, 7
FULL, LAST = 1, 4


def history(path: Path) -> list[dict]:
    """Return the rows of one file; `step` is the one wandb files them under."""
    rows = []
    for record in _records(path.read_bytes()):
        message = messages.Record()  # type: ignore[attr-defined]  # made when it is imported
        message.ParseFromString(record)
        if message.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in message.history.item}
            values = {name: json.loads(text) for name, text in items.items()}
            rows.append({**values, "step": message.history.step.num})
    return rows


def _records(content: bytes) -> Iterator[bytes]:
    position, parts = FILE_HEADER, b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        parts += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""
