"""The distance of two folders of videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cami2v.file_hash import file_sha256
from cami2v.video import write_mp4
from tests.cami2v.evaluation.detectors import PixelStatistics
from tools.benchmark_fvd import measure_fvd
from tools.fvd import main


def test_folders_are_compared_and_say_what_they_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, draws = tmp_path / "stand_in.pt", np.random.default_rng(0)
    torch.jit.script(PixelStatistics()).save(str(weights))
    for name, level in (("true/a", 100), ("true/b", 140), ("ours/x/a", 110), ("ours/b", 30)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        frames = np.clip(draws.normal(level, 20, (9, 32, 32, 3)), 0, 255).astype(np.uint8)
        write_mp4(tmp_path / f"{name}.mp4", frames, 8)
    (tmp_path / "ours" / "c.mp4").write_bytes(b"not a video")
    flags = ["--flavour", "fvd_styleganv", "--weights", str(weights)]
    folders = [str(tmp_path / "true"), str(tmp_path / "ours")]
    assert main([*folders, *flags]) == 2
    assert "not the expected bec6519f" in capsys.readouterr().err
    assert main([*folders, *flags, "--sha256", file_sha256(weights)]) == 0
    printed = capsys.readouterr().out
    ours = printed.partition(f"{tmp_path / 'ours'}: FVD StyleGAN-V ")[2]
    assert float(ours.splitlines()[0]) > 0
    assert "  clips: 2\n  true_clips: 2\n  frames: 9\n  resolution: 32x32\n" in ours
    assert "note: 1 of 3 videos could not be read" in ours
    assert (
        main([str(weights.parent / "true"), str(tmp_path / "nowhere"), *flags, "--sha256", file_sha256(weights)]) == 2
    )
    assert "nowhere: no videos below it" in capsys.readouterr().err


@pytest.mark.slow
def test_the_memory_of_judging_and_of_comparing_is_measured(tmp_path: Path) -> None:
    report = measure_fvd(tmp_path / "new", videos=[1], rows=[3])
    assert [table.rows[0][0] for table in report.tables] == ["1", "3"]
    for found in (report.numbers["judged"][1], report.numbers["compared"][3]):
        assert 50 < found["peak_mib_before"] <= found["peak_mib"]
        assert found["cpu_seconds"] > 0
