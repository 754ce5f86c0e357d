"""The benchmarks measure what they say, on the smallest cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cami2v.video import write_mp4
from tools.benchmark import main
from tools.benchmark_loader import CACHED_ALL, RAW, TARGETS
from tools.benchmark_report import Report, Table, add_to_page
from tools.benchmark_steps import BARE, CAMERA, CAMI2V, DENSE_MASK, ONE_BY_ONE, PARTS, StepCase, measure_steps
from tools.orbit_clip import orbit_batch
from tools.rounds import Spread, take_turns, times_as_fast
from tools.stored_sets import DEFAULT, FORMATS


def test_every_variant_takes_its_turn_in_every_round():
    turns: list[tuple[str, int]] = []
    ticks = iter(range(1000))
    variants = {name: lambda number, name=name: turns.append((name, number)) for name in "abc"}
    seconds = take_turns(variants, 3, clock=lambda: next(ticks))
    assert seconds == {name: [1, 1, 1] for name in "abc"}, "the round of warming up does not count"
    rounds = [turns[start : start + 3] for start in range(0, 12, 3)]
    assert [{number for _, number in each} for each in rounds] == [{-1}, {0}, {1}, {2}]
    assert all(sorted(name for name, _ in each) == ["a", "b", "c"] for each in rounds)
    assert len({each[0][0] for each in rounds[1:]}) == 3, "each begins once"


def test_ratios_are_those_of_each_round():
    spread = times_as_fast([2.0, 8.0, 3.0], [1.0, 2.0, 3.0])
    assert spread == Spread(median=2.0, low=1.0, high=4.0)
    assert spread.text(1) == "2.0 (1.0 to 4.0)"


def test_a_page_holds_what_a_day_measured(tmp_path: Path):
    def report(name: str, value: str, **figures: bytes) -> Report:
        table = Table(title="T", columns=("what", "ms"), rows=[["a", "1.0"], ["long", value]], notes=["A note."])
        said = {"date": "2026-11-22T10:00:00+00:00", "hardware": "2 cores A (B)", "load": 0.5}
        versions = {"torch": "2", "av": "3", "decord": None}
        return Report(name=name, tables=[table], numbers={"n": 1}, figures=figures, machine=said | versions)

    add_to_page(report("first", "22.0"), tmp_path / "pages", "make first")
    add_to_page(report("second", "33.0", growth=b"png"), tmp_path / "pages", "make second")
    page = add_to_page(report("first", "44.0"), tmp_path / "pages", "make again")
    assert page.name == "2026-11-22-2-cores-a-b.md"
    text = page.read_text()
    assert "`make again`, 2026-11-22T10:00:00+00:00: torch 2, av 3; load 0.5 when it began." in text
    assert "| what |   ms |\n|------|------|\n| a    |  1.0 |\n| long | 44.0 |\n\nA note." in text
    assert "22.0" not in text, "the later one of a name"
    assert text.index("## first") < text.index("## second") < text.index("![growth](2026-11-22-2-cores-a-b-second.png)")
    assert json.loads(page.with_suffix(".json").read_text())["second"]["n"] == 1
    assert {each.suffix for each in page.parent.iterdir()} == {".md", ".json", ".png"}


@pytest.mark.slow
def test_every_step_is_timed_against_the_bare_backbone():
    reports = measure_steps(
        StepCase(
            backbone="tiny",
            device=torch.device("cpu"),
            frames=2,
            rounds=1,
            parts=PARTS,
            compile=None,
            compile_modes=(),
            cami2v="cami2v",
        )
    )
    trained, sampled = reports
    training, sampling = (report.numbers["seconds"] for report in (trained, sampled))
    methods = [BARE, "MotionCtrl", "CameraCtrl", CAMI2V]
    assert list(training) == [*methods, CAMERA, DENSE_MASK]
    assert list(sampling) == [*methods, ONE_BY_ONE]
    assert all(len(took) == 1 and took[0] > 0 for took in (*training.values(), *sampling.values()))
    assert trained.tables[0].rows[0][2] == "1.00 (1.00 to 1.00)"
    forward = sampled.numbers["operations"][BARE] / 2  # of two branches
    by_step = trained.numbers["operations"]
    assert 2.5 < by_step[BARE] / forward < 3.5
    assert by_step[BARE] < by_step[CAMI2V] < 1.5 * by_step[BARE]
    assert by_step[CAMERA] < by_step[CAMI2V]


def test_the_clip_moves_and_is_always_the_same():
    batch, again = orbit_batch(4, (16, 32)), orbit_batch(4, (16, 32))
    assert batch.video.shape == (1, 3, 4, 16, 32)
    assert torch.equal(batch.video, again.video)
    translation = batch.cameras.world_to_camera[0, :, :, 3]
    assert torch.all(translation[1:].norm(dim=1) > translation[:-1].norm(dim=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_a_gpu_that_is_not_there_is_one_line(capsys):
    assert main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_without_videos_is_one_line(tmp_path: Path, capsys):
    assert main(["loader", "--clips", str(tmp_path)]) == 2
    assert main(["loader", "--clips", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.slow
def test_loader_and_packing_leave_complete_numbers(tmp_path: Path, capsys):
    """Bare videos, all ways of storing them, two workers; and packing."""
    ramp = np.linspace(0, 200, 80).astype(np.uint8)
    for name in ("a", "b"):
        frames = np.stack([np.roll(np.tile(ramp[None, :, None], (48, 1, 3)), 2 * k, axis=1) for k in range(12)])
        write_mp4(tmp_path / "videos" / f"{name}.mp4", frames, 30)
    arguments = ["--clips", str(tmp_path / "videos"), "--frames", "4", "--resolution", "32", "32", "--stride", "1", "2"]
    small = ["--rounds", "2", "--samples", "1", "--worker-samples", "2", "--packed-clips", "2", "4"]
    output = ["--json", str(tmp_path / "found.json"), "--folder", str(tmp_path / "kept")]
    assert main(["loader", "packing", *arguments, *small, *output]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*FORMATS, *TARGETS, RAW))
    found = json.loads((tmp_path / "found.json").read_text())
    loader = found["loader"]
    assert set(loader["variants"]) >= {RAW, *FORMATS, CACHED_ALL}
    for name, variant in loader["variants"].items():
        assert len(variant["cpu_seconds_per_sample"]) == len(variant["times_raw"]) == 2, name
        assert variant["bytes_per_clip"] > 0
        assert variant["skipped_samples"] == 0
    assert loader["variants"][RAW]["times_raw"] == [1.0, 1.0]
    assert loader["variants"][DEFAULT]["psnr_to_raw_db"] > 25, "the same frames of the same clips"
    assert len(loader["workers"]["1"]) == len(loader["workers"]["2"]) == 1
    assert {"read the bytes and check their sha256", "decode the frames to RGB"} <= set(loader["stages_milliseconds"])
    packing = found["packing"]["by_clips"]
    assert set(packing) == {"2", "4"}
    assert all(each["peak_mib"] >= each["peak_mib_before"] > 0 < each["cpu_seconds"] for each in packing.values())
    assert found["loader"]["machine"]["cores"] >= 1
