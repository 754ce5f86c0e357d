"""Try to fool the evaluator: videos made wrong on purpose from true ones, all judged in one evaluation, one table.

Sets: the truth; its frames shuffled, reversed, frozen (the first one only); another clip's video under this clip's
name; and the truth with one video in twenty damaged. The first four must score far worse, the last must lose those
clips only.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cami2v.evaluation.folder import GROUND_TRUTH, EvaluationFolder, read_json
from cami2v.evaluation.measures.base import VideoFailure
from cami2v.video import Frames, probe, read_frames, write_mp4
from launch.compose import compose_config, quote
from launch.errors import USER_ERRORS, explain
from launch.evaluate import run

FOOLING: dict[str, Callable[[Frames, np.random.Generator], Frames]] = {
    "shuffled": lambda frames, generator: frames[generator.permutation(len(frames))],
    "reversed": lambda frames, generator: frames[::-1],
    "frozen": lambda frames, generator: np.repeat(frames[:1], len(frames), axis=0),
}
ANOTHER, DAMAGED = "another_clips_video", "one_in_twenty_damaged"
SHOWN = ("RotErr_sum_rad", "TransErr_sum", "CamMC_sum", "EpiErr_px", "EpiOff_share")
FAR_WORSE = 3.0
"""Times the error of the true videos, failures counted, in every figure of this table that the set has."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 where nothing fooled the evaluator, 1 where something did, 2 for a wrong argument."""
    parser = argparse.ArgumentParser(prog="python -m tools.fool_evaluator", description=__doc__)
    parser.add_argument("source", type=Path, help="a shard set, or a folder of true videos <clip>.mp4")
    parser.add_argument("overrides", nargs="*", help="keys of cami2v evaluate, such as data.resolution=[256,256]")
    parser.add_argument("--cameras", type=Path, help="camera files of a folder of videos")
    parser.add_argument("--output", type=Path, default=Path("runs/fool-evaluator"), help="folder of the evaluation")
    options = parser.parse_intermixed_args(arguments)
    try:
        truth, cameras, more = _truth(options.source, options.cameras, options.output, options.overrides)
        sets = make_sets(truth, options.output / "made")
        judge = [item for item in options.overrides if not item.startswith(("data.", "evaluation.clips="))]
        given = ",".join(f"{name}: {quote(str(folder.resolve()))}" for name, folder in sets.items())
        places = [f"truth={quote(str(truth))}", f"cameras={quote(str(cameras))}", f"videos={{{given}}}"]
        output = options.output / "evaluation"
        run(compose_config("evaluate", [*places, *more, *judge, f"output={quote(str(output))}"]))
    except USER_ERRORS as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2
    lines, fooled = verdict(read_json(output / "results.json"), damaged(list(_stems(truth))))
    print("\n" + "\n".join(lines))
    return 1 if fooled else 0


def _truth(source: Path, cameras: Path | None, output: Path, overrides: Sequence[str]) -> tuple[Path, Path, list[str]]:
    """Return the folders of true videos and of cameras, and what else says which frames they are."""
    if not (source / "manifest.json").is_file():
        if cameras is None:
            raise ValueError(f"{source}: no shard set, so a folder of videos, and needs --cameras=<folder>")
        return source, cameras, []
    folder = EvaluationFolder(output / "true")
    places = [f"data.shards={quote(str(source))}", f"output={quote(str(folder.root))}"]
    run(compose_config("evaluate", [*overrides, *places, "evaluation.stages=[generate]"]))
    manifest = [f"evaluation.manifest={quote(str(folder.manifest))}"]
    return folder.root / "videos" / GROUND_TRUTH, folder.root / "cameras", manifest


def make_sets(truth: Path, output: Path) -> dict[str, Path]:
    """Write the wrong videos that are not there yet; return the folder of every set."""
    videos = _stems(truth)
    if len(videos) < 2:
        raise ValueError(f"{truth}: {len(videos)} videos; another clip's video takes two")
    sets = {name: output / name for name in (*FOOLING, ANOTHER, DAMAGED)}
    for folder in sets.values():
        folder.mkdir(parents=True, exist_ok=True)
    names = list(videos)
    broken = damaged(names)
    for number, (name, video) in enumerate(videos.items()):
        missing = [each for each in FOOLING if not (sets[each] / f"{name}.mp4").exists()]
        if missing:
            frames, rate = read_frames(video), probe(video).frames_per_second
            for each in missing:
                wrong = FOOLING[each](frames, np.random.default_rng(number))
                write_mp4(sets[each] / f"{name}.mp4", wrong, rate, crf=10, full_chroma=_is_odd(frames))
        _link(sets[ANOTHER] / f"{name}.mp4", videos[names[(number + 1) % len(names)]])
        _link(sets[DAMAGED] / f"{name}.mp4", video)
        if name in broken:
            (sets[DAMAGED] / f"{name}.mp4").unlink()
            (sets[DAMAGED] / f"{name}.mp4").write_bytes(video.read_bytes()[:200])
    return sets


def damaged(names: Sequence[str]) -> set[str]:
    """Choose one clip in twenty, at least one, spread over the list."""
    count = math.ceil(len(names) / 20)
    return set(sorted(names)[:: len(names) // count][:count])


def verdict(results: Mapping[str, Any], broken: set[str]) -> tuple[list[str], list[str]]:
    """Return the lines of the table, and the sets that fooled the evaluator."""
    summary, fooled = results["summary"], []
    truth = summary[GROUND_TRUTH]["figures"]
    shown = [name for name in SHOWN if name in truth]
    labels = [f"{results['figures'][name]['label']} {results['figures'][name]['unit']}".strip() for name in shown]
    lines = [
        "Mean over all clips, failures counted; in brackets the clips that failed; x: times the truth.",
        "",
        f"| videos | clips | {' | '.join(labels)} | noticed |",
        "|---|---|" + "---|" * (len(shown) + 1),
    ]
    for name, row in summary.items():
        cells = [_cell(row["figures"][each], truth[each], name) for each in shown]
        noticed = "-" if name == GROUND_TRUTH else "yes" if _is_noticed(results, name, shown, broken) else "NO"
        fooled += [name] if noticed == "NO" else []
        lines.append(f"| {name.replace('_', ' ')} | {row['clips']} | {' | '.join(cells)} | {noticed} |")
    return lines, fooled


def _cell(figure: Mapping[str, Any], truth: Mapping[str, Any], video_set: str) -> str:
    times = "" if video_set == GROUND_TRUTH else f" x{_over(figure, truth):.1f}"
    return f"{figure['penalised_mean']:.3g} ({figure['failed']}){times}"


def _is_noticed(results: Mapping[str, Any], video_set: str, shown: Sequence[str], broken: set[str]) -> bool:
    figures, truth = results["summary"][video_set]["figures"], results["summary"][GROUND_TRUTH]["figures"]
    if video_set == DAMAGED:
        return _unusable(results, video_set) == broken
    return all(_over(figures[name], truth[name]) >= FAR_WORSE for name in shown)


def _unusable(results: Mapping[str, Any], video_set: str) -> set[str]:
    """Return the clips whose video could not be read, by any measure."""
    return {
        clip["clip_id"]
        for clip in results["clips"]
        if clip["video_set"] == video_set
        and any(failure["reason"] == VideoFailure.UNREADABLE_VIDEO for failure in clip["failures"])
    }


def _over(figure: Mapping[str, Any], truth: Mapping[str, Any]) -> float:
    return float(figure["penalised_mean"]) / float(truth["penalised_mean"]) if truth["penalised_mean"] else math.inf


def _stems(folder: Path) -> dict[str, Path]:
    return {path.stem: path.resolve() for path in sorted(folder.glob("*.mp4")) if not path.name.startswith(".")}


def _link(link: Path, video: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(video)


def _is_odd(frames: Frames) -> bool:
    return bool(frames.shape[1] % 2 or frames.shape[2] % 2)


if __name__ == "__main__":
    raise SystemExit(main())
