"""The Frechet video distance of folders of videos, without cameras: `python -m tools.fvd TRUE GENERATED...`.

Every video below a folder counts, all its frames. `cami2v evaluate evaluation/fvd=...` does the same for clips with
cameras, restarts, and reports it with everything else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from cami2v.evaluation.folder import GROUND_TRUTH
from cami2v.evaluation.fvd_flavours import FLAVOURS
from cami2v.evaluation.measures.base import Row, VideoFailure
from cami2v.evaluation.measures.video_features import VideoFeatures
from cami2v.video import read_frames

VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each folder's distance to the first one, with all that it depends on; 2 for what a user got wrong."""
    options = _parser().parse_args(arguments)
    try:
        measure = VideoFeatures(
            flavour=options.flavour,
            weights=options.weights,
            sha256=options.sha256,
            precision=options.precision,
            extrapolate=options.extrapolate,
        )
        measure.prepare()
        folders = {GROUND_TRUTH: options.true} | {str(folder): folder for folder in options.generated}
        videos = {name: videos_below(folder) for name, folder in folders.items()}
        rows = {name: (_row(measure, path) for path in tqdm(found, desc=name)) for name, found in videos.items()}
        distances = measure.distances(rows)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, found in distances.items():
        notes = found.pop("notes")
        print(f"{name}: {found.pop('label')} {found.pop('value')}")
        print("\n".join(f"  {key}: {value}" for key, value in found.items()))
        print("".join(f"  note: {note}\n" for note in notes), end="")
    return 0


def videos_below(folder: Path) -> list[Path]:
    """List the videos below a folder, sorted. Raises ValueError where there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEOS)
    if not found:
        raise ValueError(f"{folder}: no videos below it ({', '.join(sorted(VIDEOS))})")
    return found


def _row(measure: VideoFeatures, video: Path) -> Row:
    try:
        frames = read_frames(video)
    except ValueError as error:
        return {"failure": VideoFailure.UNREADABLE_VIDEO.value, "detail": str(error)}
    return measure.judge_frames(frames) | {"measured_with": measure.describe()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fvd", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("true", type=Path)
    parser.add_argument("generated", type=Path, nargs="+")
    parser.add_argument("--flavour", choices=sorted(FLAVOURS), default="fvd_videogpt", help="docs/fvd.md")
    parser.add_argument("--weights", type=Path, help="default: where `cami2v weights fetch` puts them")
    parser.add_argument("--sha256", help="what the file's hash must be; default: the released one's, where known")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--extrapolate", action="store_true", help="also fit what more videos would tend to")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
