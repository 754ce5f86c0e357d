"""Packs a folder of clips; a program of its own, for tests that kill it."""

import sys
from pathlib import Path

from tests.data_pipeline.raw_folders import pack_quietly

if __name__ == "__main__":
    pack_quietly(Path(sys.argv[1]), Path(sys.argv[2]), processes=int(sys.argv[3]), samples_per_shard=2)
