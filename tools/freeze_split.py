"""Write what is in one split of a shard set into a small file: to publish it, and to hold other sets against it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.frozen_split import as_json, freeze


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; 2 for a wrong argument, a damaged set, or a file that says something else."""
    parser = argparse.ArgumentParser(prog="python -m tools.freeze_split", description=__doc__)
    parser.add_argument("shards", type=Path, help="folder that has manifest.json")
    parser.add_argument("split", help="such as test")
    parser.add_argument("--output", type=Path, help="file to write (default shards/<folder>.<split>.json)")
    options = parser.parse_args(arguments)
    output = options.output or Path("shards") / f"{options.shards.resolve().name}.{options.split}.json"
    try:
        frozen = freeze(options.shards, options.split, output)
        text = as_json(frozen)
        if output.exists() and output.read_text(encoding="utf-8") != text:
            raise ValueError(f"{output}: holds another split; what was published stays: remove it, or give --output")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{output}: {len(frozen.clips)} clips of {len(frozen.sources)} source videos in {len(frozen.shards)} shards")
    print(f"hold a set against it: cami2v evaluate ... data.split={frozen.split} data.frozen_split={output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
