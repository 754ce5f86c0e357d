"""Skipped clips in a run: listed, counted, kept over a resume, and the end of a run that has too many."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cami2v.batch import ClipBatch, SkippedClip
from cami2v.training.callbacks.base import TrainingStoppedError
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.callbacks.skipped import FEWEST_SAMPLES, SkippedClips
from tests.cami2v.training.toys import LOGGING, ToyStream, train

pytestmark = pytest.mark.usefixtures("one_process")


class Skipping(ToyStream):
    """Replaces sample n for every n in `bad`."""

    def __init__(self, bad: dict[int, str], max_skip_rate: float = 0.02) -> None:
        super().__init__()
        self.bad = bad
        self.max_skip_rate = max_skip_rate
        self.pending: list[SkippedClip] = []

    def stream(
        self, *, micro_batch_size: int, rank: int, world_size: int, seed: int, start: int
    ) -> Iterator[ClipBatch]:
        """Yield single clips."""
        number = start
        for batch in super().stream(micro_batch_size=1, rank=0, world_size=1, seed=seed, start=start):
            if number in self.bad:
                clip = self.bad[number]
                message = f"a.tar sample {clip}: broken"
                self.pending.append(
                    SkippedClip(sample=number, shard="a.tar", clip=clip, reason="not_a_clip", message=message)
                )
            yield batch
            number += 1

    def take_skipped(self) -> list[SkippedClip]:
        """Return what was replaced since the last call."""
        taken, self.pending = self.pending, []
        return taken


def run(folder: Path, stream: Skipping, **options) -> None:
    log = MetricsLog(every_steps=1, settings=LOGGING, config={})
    train(folder, "single", stream=stream, callbacks=(SkippedClips(stream=stream, log=log),), **options)


def listed(folder: Path) -> list[tuple[int, str]]:
    lines = (folder / "skipped_clips.jsonl").read_text().splitlines()
    return [(row["sample"], row["clip"]) for row in map(json.loads, lines)]


def metrics(folder: Path, key: str) -> list[tuple[int, float]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row[key]) for row in rows if key in row]


def test_skips_are_listed_counted_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, Skipping({2: "x", 3: "y", 13: "x"}))
    assert listed(tmp_path) == [(2, "x"), (3, "y"), (13, "x")]
    assert metrics(tmp_path, "skipped_samples") == [(1, 2), (4, 3)]
    assert metrics(tmp_path, "skipped_not_a_clip") == [(1, 2), (4, 3)]
    assert metrics(tmp_path, "skip_rate") == [(1, 2 / 4), (4, 3 / 16)]
    said = [record.message for record in caplog.records if "gets another clip" in record.message]
    assert said == [
        f"sample {n} gets another clip (not_a_clip): a.tar sample {c}: broken" for n, c in [(2, "x"), (3, "y")]
    ]


def test_a_clean_run_has_no_list(tmp_path: Path) -> None:
    run(tmp_path, Skipping({}))
    assert not (tmp_path / "skipped_clips.jsonl").exists()
    assert metrics(tmp_path, "skipped_samples") == []


def test_above_the_rate_the_run_stops_with_the_list(tmp_path: Path) -> None:
    allowed = int(0.02 * FEWEST_SAMPLES)
    stream = Skipping({number: f"c{number}" for number in range(5, 5 + allowed + 1)})
    with pytest.raises(TrainingStoppedError) as caught:
        run(tmp_path, stream)
    message = str(caught.value)
    assert message.startswith("step 3: 5 of 12 samples had to be replaced, above data.max_skip_rate=0.02")
    assert "by reason: not_a_clip 5; clips: a.tar/c5, a.tar/c6, a.tar/c7, a.tar/c8, a.tar/c9; all in" in message
    assert "\n" not in message
    assert len(listed(tmp_path)) == 5


def test_rate_zero_stops_at_the_first(tmp_path: Path) -> None:
    with pytest.raises(TrainingStoppedError, match="step 2: 1 of 8 samples had to be replaced"):
        run(tmp_path, Skipping({6: "x"}, max_skip_rate=0.0))


def test_a_resumed_run_lists_every_skip_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = {2: "x", 9: "y", 14: "z", 21: "x"}
    run(tmp_path / "whole", Skipping(bad))
    run(tmp_path / "cut", Skipping(bad), max_steps=4)
    # As after a kill: step 4 was listed, but the run continues from step 3.
    checkpoints = tmp_path / "cut" / "checkpoints"
    (checkpoints / "latest").write_text("step-00000003\n")
    assert listed(tmp_path / "cut") == [(2, "x"), (9, "y"), (14, "z")]
    with (tmp_path / "cut" / "skipped_clips.jsonl").open("a") as file:
        file.write('{"sample": 15, "sha')
    caplog.clear()
    run(tmp_path / "cut", Skipping(bad), resume=str(tmp_path / "cut"))
    assert listed(tmp_path / "cut") == listed(tmp_path / "whole")
    assert metrics(tmp_path / "cut", "skipped_samples")[-1] == metrics(tmp_path / "whole", "skipped_samples")[-1]
    assert "sample 21" not in caplog.text  # x was named before the resume
