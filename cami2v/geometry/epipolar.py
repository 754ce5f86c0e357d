"""Epipolar attention masks (CamI2V, arXiv 2410.15957, section 3.3).

A query cell of frame i may attend to the cells of frame j whose centre lies close to the query's epipolar line in
frame j.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64
from torch import Tensor

from cami2v.geometry.cameras import intrinsic_matrix, invert_pose

NEGLIGIBLE_TRANSLATION = 1e-6
"""Below this in every component (model units) a pair of cameras shares one centre: its epipoles are undefined."""

CHUNK_ELEMENTS = 2**24
"""Point-to-line distances held at once (64 MiB); the 256x256 level at downsample 8 has 16 times as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpipolarOptions:
    """Changes to the plain epipolar rule, applied in the order of the fields."""

    hybrid: bool = False
    """A query without any key in frame j sees all of frame j."""
    hybrid_v2: bool = False
    """A query without any key in any frame sees everything."""
    only_self_pixel_on_current_frame: bool = False
    """In its own frame a query sees itself only."""
    current_frame_as_register_token: bool = False
    """In its own frame a query sees everything (published name; unrelated to the register tokens)."""
    key_intrinsics_on_both_sides: bool = False
    """Compatibility: form F with the key frame's intrinsics for the query frame too, as the published code does.
    Differs only while the focal length changes within a clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellGrid:
    """The feature map's cells of a clip, `downsample` times coarser than its images; tokens are "frames rows columns".

    Raises ValueError for an image that is smaller than a cell.
    """

    frames: int
    height: int
    width: int
    """Of the images, in pixels."""
    downsample: int

    def __post_init__(self) -> None:
        if self.rows == 0 or self.columns == 0:
            raise ValueError(f"a {self.height}x{self.width} image has no feature map at downsample {self.downsample}")

    @property
    def rows(self) -> int:
        """Return the cells along the image's height."""
        return self.height // self.downsample

    @property
    def columns(self) -> int:
        """Return the cells along the image's width."""
        return self.width // self.downsample

    @property
    def cells(self) -> int:
        """Return the cells of one frame."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        """Return the cells of the clip."""
        return self.frames * self.cells

    @property
    def half_width(self) -> float:
        """Return how far from a line, in pixels, a cell's centre may lie: half the diagonal of a cell."""
        return self.downsample * math.sqrt(2) / 2

    def centres(self, index: Int[Tensor, "..."]) -> Float64[Tensor, "..."]:
        """Return the pixel coordinate of the centres of rows or columns."""
        return index.double() * self.downsample + (self.downsample / 2 - 0.5)


def pairwise_poses(relative_poses: Float[Tensor, "batch frames 4 4"]) -> Float64[Tensor, "batch frames frames 4 4"]:
    """Map coordinates of camera i (first frame axis) to camera j (second); exactly the identity for i = j."""
    poses = relative_poses.double()
    pairs = invert_pose(poses)[:, None, :] @ poses[:, :, None]
    same = torch.arange(poses.shape[1], device=poses.device)
    pairs[:, same, same] = torch.eye(4, dtype=poses.dtype, device=poses.device)
    return pairs


def fundamental_matrices(
    relative_poses: Float[Tensor, "batch frames 4 4"],
    intrinsics_pixels: Float[Tensor, "batch frames 4"],
    *,
    perturbation: Float[Tensor, "batch frames frames 3"] | None,
    key_intrinsics_on_both_sides: bool = False,
) -> Float64[Tensor, "batch frames frames 3 3"]:
    """Form F[b, i, j], which maps a pixel of frame i to its line in frame j: Kj^-T [t]x R Ki^-1.

    `perturbation` (standard normal numbers) gives pairs that share a camera centre, same-frame pairs above all, a
    random epipole; F is zero for them otherwise.
    """
    pairs = pairwise_poses(relative_poses)
    rotation, translation = pairs[..., :3, :3], pairs[..., :3, 3]
    if perturbation is not None:
        negligible = (translation.abs() < NEGLIGIBLE_TRANSLATION).all(dim=-1, keepdim=True)
        translation = torch.where(negligible, NEGLIGIBLE_TRANSLATION * perturbation.double(), translation)
    essential = torch.linalg.cross(translation[..., None].expand_as(rotation), rotation, dim=-2)
    inverse_intrinsics = torch.linalg.inv(intrinsic_matrix(intrinsics_pixels.double()))
    key_side = inverse_intrinsics[:, None, :]
    query_side = key_side if key_intrinsics_on_both_sides else inverse_intrinsics[:, :, None]
    return key_side.mT @ essential @ query_side


def mask_from_fundamental(
    fundamental: Float[Tensor, "batch frames frames 3 3"],
    height: int,
    width: int,
    downsample: int,
    options: EpipolarOptions,
) -> Bool[Tensor, "batch queries keys"]:
    """Mark the (query, key) cells within half a cell diagonal of each other's epipolar line.

    Cells are those of a feature map `downsample` times smaller than the height x width image, frame-major and
    row-major. The whole mask in memory is for tests and comparisons: attention asks for `mask_rows`.
    """
    grid = CellGrid(frames=fundamental.shape[1], height=height, width=width, downsample=downsample)
    mask = torch.empty(fundamental.shape[0], grid.tokens, grid.tokens, dtype=torch.bool, device=fundamental.device)
    queries = torch.arange(grid.tokens, device=fundamental.device)
    key_frames = torch.arange(grid.frames, device=fundamental.device)
    for clip, matrices in enumerate(fundamental):
        for some in queries.split(max(1, CHUNK_ELEMENTS // grid.tokens)):
            mask[clip, some] = mask_rows(matrices, some, key_frames, grid, options)
    return mask


def mask_rows(
    fundamental: Float[Tensor, "frames frames 3 3"],
    queries: Int64[Tensor, " queries"],
    key_frames: Int64[Tensor, " key_frames"],
    grid: CellGrid,
    options: EpipolarOptions,
) -> Bool[Tensor, "queries keys"]:
    """Compute the mask of some query tokens of one clip and of all cells of some key frames.

    Pixel centres lie at integer coordinates here, half a pixel off the Pluecker map: released weights were trained with
    both. A pair without parallax (F = 0) has no line, hence no True.
    """
    frame, cell = queries // grid.cells, queries % grid.cells
    # Whether a row is empty over all frames cannot be told from some of them.
    needed = torch.arange(grid.frames, device=queries.device) if options.hybrid_v2 else key_frames
    near = _near_lines(epipolar_lines(fundamental, queries, needed, grid), grid)
    if options.hybrid:
        near |= ~near.any(dim=-1, keepdim=True)
    if options.hybrid_v2:
        near |= ~near.any(dim=(-2, -1), keepdim=True)
        near = near.index_select(1, key_frames)
    same_frame = (frame[:, None] == key_frames)[..., None]
    if options.only_self_pixel_on_current_frame:
        itself = cell[:, None] == torch.arange(grid.cells, device=queries.device)
        near = torch.where(same_frame, itself[:, None], near)
    if options.current_frame_as_register_token:
        near |= same_frame
    return rearrange(near, "q k cells -> q (k cells)")


def epipolar_lines(
    fundamental: Float[Tensor, "frames frames 3 3"],
    queries: Int64[Tensor, " queries"],
    key_frames: Int64[Tensor, " key_frames"],
    grid: CellGrid,
) -> Float32[Tensor, "queries key_frames 3"]:
    """Compute unit-normal lines of query cells in key frames, in pixels; NaN where F is zero."""
    frame, cell = queries // grid.cells, queries % grid.cells
    matrices = fundamental[frame].index_select(1, key_frames)
    x = grid.centres(cell % grid.columns).to(fundamental.dtype)[:, None, None]
    y = grid.centres(cell // grid.columns).to(fundamental.dtype)[:, None, None]
    lines = (matrices[..., 1] * y + matrices[..., 2]) + matrices[..., 0] * x
    return (lines / torch.linalg.vector_norm(lines[..., :2], dim=-1, keepdim=True)).float()


def near_any_cell(lines: Float32[Tensor, "queries key_frames 3"], grid: CellGrid) -> Bool[Tensor, "queries key_frames"]:
    """Tell which lines have a cell of their frame in their band, without testing all of them.

    In every column (for steep lines: row) no cell is nearer than one of the two that the line passes between. The
    arithmetic is that of the mask, so that both agree to the last bit.
    """
    a, b, c = lines[..., None].unbind(dim=-2)
    steep = a.abs() > b.abs()
    numbers = torch.arange(max(grid.rows, grid.columns), dtype=torch.float32, device=lines.device)
    first = grid.downsample / 2 - 0.5
    last_along, last_across = (
        torch.where(steep, float(one - 1), float(other - 1))
        for one, other in ((grid.rows, grid.columns), (grid.columns, grid.rows))
    )
    along = numbers.minimum(last_along) * grid.downsample + first
    run, rise = torch.where(steep, b, a), torch.where(steep, a, b)
    below = ((-(run * along + c) / rise - first) / grid.downsample).floor()
    found = torch.zeros(lines.shape[:2], dtype=torch.bool, device=lines.device)
    for place in (below, below + 1):
        across = place.clamp_min(0).minimum(last_across) * grid.downsample + first
        x, y = torch.where(steep, across, along), torch.where(steep, along, across)
        found |= ((a * x + (b * y + c)).abs() < grid.half_width).any(dim=-1)
    return found


def epipolar_mask(
    relative_poses: Float[Tensor, "batch frames 4 4"],
    intrinsics_pixels: Float[Tensor, "batch frames 4"],
    height: int,
    width: int,
    downsample: int,
    perturbation: Float[Tensor, "batch frames frames 3"] | None,
    options: EpipolarOptions,
) -> Bool[Tensor, "batch queries keys"]:
    """Build the attention mask of one pyramid level; True means the query (rows) may attend to the key (columns)."""
    fundamental = fundamental_matrices(
        relative_poses,
        intrinsics_pixels,
        perturbation=perturbation,
        key_intrinsics_on_both_sides=options.key_intrinsics_on_both_sides,
    )
    return mask_from_fundamental(fundamental, height, width, downsample, options)


def _near_lines(
    lines: Float32[Tensor, "queries key_frames 3"], grid: CellGrid
) -> Bool[Tensor, "queries key_frames cells"]:
    x = grid.centres(torch.arange(grid.columns, device=lines.device)).float()
    y = grid.centres(torch.arange(grid.rows, device=lines.device)).float()
    # Element-wise on purpose: autocast and TF32 would round the products of a matrix multiplication.
    a, b, c = lines[..., None, None].unbind(2)
    distance = a * x + (b * y[:, None] + c)
    near = distance.abs_() < grid.half_width
    return rearrange(near, "q k r c -> q k (r c)")
