"""What packing takes: CPU seconds per clip, and memory by the number of clips."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cami2v.video import Frame, encode_mp4
from launch.compose import compose_config, settings
from tools.benchmark_report import Report, Table

FRAMES, HEIGHT, WIDTH = 16, 96, 160
_DISTINCT = 20
"""Videos that are encoded; the others are copies with another id and other cameras."""
_IN_ANOTHER_PROCESS = "import sys; from tools.benchmark_packing import pack_once; pack_once(*sys.argv[1:])"


def measure_packing(folder: Path, counts: Sequence[int]) -> Report:
    """Pack sets of these many small clips, each in a process of its own that does nothing else."""
    found = {}
    for count in sorted(counts):
        raw = folder / f"raw-{count}"
        write_clips(raw, count)
        run = subprocess.run(
            [sys.executable, "-c", _IN_ANOTHER_PROCESS, str(raw), str(folder / f"set-{count}")],
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            raise ValueError(f"packing {count} clips failed: {run.stderr.strip().splitlines()[-1]}")
        found[str(count)] = json.loads(run.stdout.splitlines()[-1])
    rows = [
        [
            count,
            f"{int(count) / each['cpu_seconds']:.1f}",
            f"{each['peak_mib_before']:.0f}",
            f"{each['peak_mib']:.0f}",
            f"{each['peak_mib'] - each['peak_mib_before']:.1f}",
        ]
        for count, each in found.items()
    ]
    note = (
        f"Clips of {FRAMES} frames of {WIDTH}x{HEIGHT}, stored at their own size in the default format; one process, "
        "from reading the folder to the finished set. Memory before packing is imported libraries."
    )
    columns = ("clips", "clips/s/core", "MiB before", "peak MiB", "of packing")
    table = Table(title="Packing", columns=columns, rows=rows, notes=[note])
    return Report(name="packing", tables=[table], numbers={"by_clips": found, "frames": FRAMES})


def write_clips(folder: Path, count: int) -> None:
    """Write a raw folder of short clips of moving noise, a source video each."""
    (folder / "video_clips").mkdir(parents=True)
    (folder / "pose_files").mkdir()
    videos = [encode_mp4(_moving_noise(number), fps=30, crf=18) for number in range(min(_DISTINCT, count))]
    captions = {}
    for number in range(count):
        clip_id = f"clip{number:06d}"
        (folder / "video_clips" / f"{clip_id}.mp4").write_bytes(videos[number % len(videos)])
        lines = [f"https://video.invalid/watch?v=source{number:06d}"]
        for frame in range(FRAMES):
            pose = f"1 0 0 {0.01 * frame + number * 1e-6:.9f} 0 1 0 0 0 0 1 0"
            lines.append(f"{round(frame * 1e6 / 30)} 0.6 {0.6 * WIDTH / HEIGHT:.9f} 0.5 0.5 0 0 {pose}")
        (folder / "pose_files" / f"{clip_id}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        captions[f"{clip_id}.mp4"] = ["moving noise"]
    (folder / "captions.json").write_text(json.dumps(captions) + "\n", encoding="utf-8")


def pack_once(raw: str, output: str) -> None:
    """Pack, and print what it took as JSON; meant for a process of its own, whose memory is then packing's."""
    from data_pipeline.pack import PackSettings, pack

    config = compose_config("pack", ["pack.processes=1", "pack.splits={train:1.0,validation:0.0,test:0.0}"])
    options = settings(config.pack, PackSettings, "pack")
    before = resource.getrusage(resource.RUSAGE_SELF)
    pack(Path(raw), Path(output), options, generator={}, progress=False)
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    peaks = {"peak_mib_before": before.ru_maxrss / 1024, "peak_mib": after.ru_maxrss / 1024}
    print(json.dumps({"cpu_seconds": spent, **peaks}))


def _moving_noise(seed: int) -> list[Frame]:
    noise = np.random.default_rng(seed).normal(size=(HEIGHT + FRAMES, WIDTH + FRAMES, 3)).cumsum(0).cumsum(1)
    texture = ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)
    return [texture[shift : shift + HEIGHT, shift : shift + WIDTH] for shift in range(FRAMES)]
