"""How much of epipolar attention is empty for the poses of real clips: the band, blocks in two orders, bundles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from cami2v.attention.bundles import BUNDLE, FramePair, bundles_of_pair, pencil_positions
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.tiles import tile_order
from cami2v.geometry.cameras import relative_poses
from cami2v.geometry.epipolar import CellGrid, EpipolarOptions, fundamental_matrices
from cami2v.geometry.framing import frame_intrinsics, framing_for
from tools.benchmark_report import Report, Table
from tools.raw_videos import RawVideos
from tools.rounds import Spread

SIZES = ((256, 256), (320, 512))
BLOCKS = (128, 64, 32)
BAND, BUNDLES = "pairs within the bands", f"pairs in bundles of {BUNDLE} (sdpa)"


def measure_occupancy(clips: Path, frames: int, query_frames: int) -> Report:
    """Count at the finest level of both published sizes, over some query frames of every clip."""
    shares: dict[str, dict[str, list[float]]] = {}
    for height, width in SIZES:
        videos = RawVideos(clips, (height, width))
        for bands in _bands(videos, frames):
            for name, share in _shares(bands, query_frames).items():
                shares.setdefault(name, {}).setdefault(f"{height} x {width}", []).append(share)
    rows = [
        [name, *(_percent(by_size[f"{height} x {width}"]) for height, width in SIZES)]
        for name, by_size in shares.items()
    ]
    note = (
        f"First {frames} frames of each of {len(videos.clips)} clips, {query_frames} query frames each; medians over "
        "clips, in brackets the lowest and highest. Register tokens are left out."
    )
    columns = ["share of all pairs of tokens", *(f"{height} x {width}" for height, width in SIZES)]
    table = Table(title="What epipolar attention has to multiply", columns=columns, rows=rows, notes=[note])
    return Report(name="occupancy", tables=[table], numbers={"shares": shares})


def _percent(shares: list[float]) -> str:
    spread = Spread.of([100 * share for share in shares])
    return f"{spread.text(1)} %"


def _bands(videos: RawVideos, frames: int) -> Iterator[EpipolarBands]:
    height, width = videos.resolution
    for clip in videos.clips:
        track = clip.files.track()
        poses = relative_poses(torch.from_numpy(track.world_to_camera[:frames])[None], torch.tensor([0]))
        framing = framing_for(clip.native_height, clip.native_width, (height, width), clip.pixel_aspect)
        intrinsics = frame_intrinsics(torch.from_numpy(track.intrinsics_normalized[:frames]), framing)
        noise = torch.randn(1, frames, frames, 3, generator=torch.Generator().manual_seed(0))
        yield EpipolarBands(
            fundamental=fundamental_matrices(poses, intrinsics[None], perturbation=noise),
            grid=CellGrid(frames=frames, height=height, width=width, downsample=8),
            options=EpipolarOptions(),
            condition_frame=None,
        )


def _shares(bands: EpipolarBands, query_frames: int) -> dict[str, float]:
    grid = bands.grid
    chosen = torch.linspace(0, grid.frames - 1, query_frames).round().long().tolist()
    orders = {"rows": torch.arange(grid.cells), "tiles of 8x8": tile_order(grid)}
    found: dict[str, list[float]] = {}
    for frame in chosen:
        near = bands.rows(0, frame * grid.cells + torch.arange(grid.cells)).unflatten(1, (grid.frames, grid.cells))
        found.setdefault(BAND, []).append(float(near.float().mean()))
        for name, order in orders.items():
            ordered = near[order][:, :, order].flatten(1)
            for size in BLOCKS:
                found.setdefault(f"blocks of {size}, {name}", []).append(_occupied(ordered, size))
        positions = pencil_positions(bands.fundamental[0, frame].double(), grid).argsort(dim=-1)
        met = [
            some.queries.shape[1] * some.keys.numel()
            for slot, order in enumerate(positions)
            for some in bundles_of_pair(FramePair.of(bands, 0, frame, slot), order)
        ]
        found.setdefault(BUNDLES, []).append(sum(met) / near.numel())
    return {name: sum(shares) / len(shares) for name, shares in found.items()}


def _occupied(allowed: Bool[Tensor, "queries keys"], size: int) -> float:
    return float(allowed.unflatten(1, (-1, size)).any(dim=2).unflatten(0, (-1, size)).any(dim=1).float().mean())
