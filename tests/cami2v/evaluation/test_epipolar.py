"""Epipolar errors of real matches: frames of a picture in space, seen by known cameras."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cami2v.evaluation.epipolar_error import moves, pairs_to_match
from cami2v.evaluation.folder import RequestedCameras
from cami2v.evaluation.measures.base import JudgedClip, Row
from cami2v.evaluation.measures.epipolar import EpipolarErrors
from cami2v.video import write_mp4
from launch.compose import compose_config, instantiate_part

FRAMES, HEIGHT, WIDTH = 8, 96, 128
INTRINSICS = np.array([110.0, 100.0, 64.0, 48.0])
WORST = 0.05 * np.hypot(HEIGHT, WIDTH)


def measure() -> EpipolarErrors:
    config = compose_config("evaluate", ["data.shards=none"])
    built = instantiate_part(config.evaluation.measures.epipolar, "evaluation.measures.epipolar")
    assert isinstance(built, EpipolarErrors)
    return built


def path(degrees: float = 0.0, step: Sequence[float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """World-to-camera poses that turn by `degrees` and walk by `step` per frame."""
    poses = []
    for frame in range(FRAMES):
        rotation = Rotation.from_euler("y", frame * degrees, degrees=True).as_matrix()
        poses.append(np.column_stack([rotation, -rotation @ (frame * np.array(step))]))
    return np.stack(poses)


@functools.cache
def rendered(cameras: bytes) -> np.ndarray:
    return render(np.frombuffer(cameras).reshape(-1, 3, 4))


def seen(cameras: np.ndarray) -> np.ndarray:
    return rendered(cameras.tobytes())


def render(cameras: np.ndarray) -> np.ndarray:
    """Render a tilted wall with a random picture on it, three to five units away."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((1, 3, 150, 150), generator=generator)
    picture = torch.nn.functional.interpolate(coarse, scale_factor=6, mode="bicubic").clamp(0, 1)
    x, y = np.meshgrid((np.arange(WIDTH) + 0.5 - 64) / 110, (np.arange(HEIGHT) + 0.5 - 48) / 100)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)
    frames = []
    for camera in cameras:
        center = -camera[:, :3].T @ camera[:, 3]
        directions = rays @ camera[:, :3]
        normal = np.array([-0.5, 0.0, 1.0])
        depth = (4.0 - center @ normal) / (directions @ normal)
        where = torch.from_numpy((center + depth[..., None] * directions)[None, ..., :2] / 8).float()
        frame = torch.nn.functional.grid_sample(picture, where, align_corners=False, padding_mode="reflection")
        frames.append((frame[0].permute(1, 2, 0) * 255).byte().numpy())
    return np.stack(frames)


def judge(folder: Path, frames: np.ndarray, cameras: np.ndarray) -> Row:
    height, width = frames.shape[1:3]
    requested = RequestedCameras(
        world_to_camera=cameras,
        intrinsics_pixels=np.tile(INTRINSICS, (len(cameras), 1)),
        translation_scale=np.ones(len(cameras)),
        height=height,
        width=width,
    )
    video = folder / "clip.mp4"
    write_mp4(video, frames, 8, crf=10)
    clip = JudgedClip(clip_id="clip", video_set="generated", video=video, true_video=video, cameras=requested)
    return measure().judge(clip)


def score(folder: Path, frames: np.ndarray, cameras: np.ndarray) -> tuple[float, float]:
    values = measure().values(judge(folder, frames, cameras))
    error, off = values["EpiErr_px"], values["EpiOff_share"]
    assert error is not None
    assert off is not None
    return error, off


WALK = path(degrees=-0.5, step=(0.08, 0.0, 0.02))
PURE = path(step=(0.08, 0.0, 0.0))
TURN = path(degrees=1.0)


@pytest.mark.parametrize("cameras", [WALK, PURE, TURN, path()], ids=["walk", "translation", "rotation", "static"])
def test_the_true_video_scores_well(cameras: np.ndarray, tmp_path: Path) -> None:
    error, off = score(tmp_path, seen(cameras), cameras)
    assert error < 0.4
    assert off < 0.05


def test_it_cannot_be_fooled(tmp_path: Path) -> None:
    order = [3, 0, 6, 1, 7, 4, 2, 5]
    wrong = {
        "reversed": (seen(WALK)[::-1], WALK),
        "reversed translation": (seen(PURE)[::-1], PURE),
        "shuffled": (seen(WALK)[order], WALK),
        "frozen": (np.repeat(seen(WALK)[:1], FRAMES, axis=0), WALK),
        "frozen translation": (np.repeat(seen(PURE)[:1], FRAMES, axis=0), PURE),
        "moves though asked to stand": (seen(WALK), path()),
        "turns though asked to walk up": (seen(TURN), path(step=(0.0, 0.08, 0.0))),
    }
    for name, (frames, cameras) in wrong.items():
        error, off = score(tmp_path, np.ascontiguousarray(frames), cameras)
        assert error > 2, name
        assert off > 0.3, name


def test_every_clip_has_a_score_and_failures_a_reason(tmp_path: Path) -> None:
    black = judge(tmp_path, np.zeros((FRAMES, 48, 64, 3), np.uint8), WALK)
    assert black["failure"] == "too few matches"
    assert measure().values(black) == {"EpiErr_px": pytest.approx(WORST / 2), "EpiOff_share": 1.0}
    frozen = judge(tmp_path, np.repeat(seen(PURE)[:1], FRAMES, axis=0), PURE)
    assert frozen["failure"] == "stands still"
    assert measure().values(frozen) == {"EpiErr_px": pytest.approx(WORST), "EpiOff_share": 1.0}
    cut = judge(tmp_path, seen(WALK)[:5], WALK)
    assert cut["failure"] == "wrong frame count"
    assert measure().values(cut) == {"EpiErr_px": None, "EpiOff_share": None}
    assert measure().penalties(cut) == {"EpiErr_px": pytest.approx(WORST), "EpiOff_share": 1.0}
    tiny = judge(tmp_path, np.zeros((FRAMES, 16, 24, 3), np.uint8), WALK)
    assert tiny["failure"] == "too small"
    facts = measure().facts([black, frozen, cut])
    assert facts["penalised_clips"] == {"stands still": 1, "too few matches": 1, "wrong frame count": 1}
    assert facts["unmatched_pairs"] == len(black["pairs"]) == facts["pairs"] / 2
    assert measure().values({**frozen, "failure": None})["EpiErr_px"] == pytest.approx(0, abs=0.1), (
        "why it is a failure"
    )


def test_what_a_cut_hides_counts_as_worst(tmp_path: Path) -> None:
    good = seen(WALK)
    frames = np.concatenate([good[:6], np.zeros_like(good[6:])])
    row = judge(tmp_path, frames, WALK)
    unmatched = [pair for pair in row["pairs"] if pair["matches"] == 0]
    assert {(pair["first_frame"], pair["second_frame"]) for pair in unmatched} == {(4, 6), (5, 6), (5, 7), (6, 7)}
    error = measure().values(row)["EpiErr_px"]
    assert error == pytest.approx(WORST * len(unmatched) / len(row["pairs"]), rel=0.2)


def test_pairs_and_paths() -> None:
    assert pairs_to_match(2) == [(0, 1)]
    assert {second - first for first, second in pairs_to_match(16)} == {1, 2, 4}
    assert len(pairs_to_match(16)) == 15 + 14 + 12
    assert pairs_to_match(1) == []
    assert not moves(path())
    assert moves(PURE)
    assert moves(TURN)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("off_pixels=0", "evaluation.measures.epipolar.off_pixels=0.0: must be above 0"),
        ("min_matches=7", "min_matches=7: must be at least 8"),
    ],
)
def test_wrong_settings_name_their_key(override: str, message: str) -> None:
    config = compose_config("evaluate", ["data.shards=none", f"evaluation.measures.epipolar.{override}"])
    with pytest.raises(ValueError, match=message):
        instantiate_part(config.evaluation.measures.epipolar, "evaluation.measures.epipolar")
