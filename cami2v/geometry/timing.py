"""When a camera is where: frame positions along a path, apart from how poses are interpolated there.

Positions count poses of the path (0 is the first, fractions lie between). Pass them to `interpolate_poses`, or to
`interpolate_matrices` to reproduce the published demo.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def even_positions(poses: int, samples: int) -> Float64[Tensor, " samples"]:
    """Spread positions evenly over the whole path."""
    return torch.linspace(0, poses - 1, samples, dtype=torch.float64)


def excerpt_positions(poses: int, samples: int, ratio: float) -> Float64[Tensor, " samples"]:
    """Spread positions evenly over the first `ratio` of the path; ratios above 1 take all of it.

    The path is divided into round(samples / ratio) positions (half to even), as in the published demo, of which the
    first `samples` are kept.

    Raises:
        ValueError: the ratio is not positive.
    """
    if ratio <= 0:
        raise ValueError(f"trajectory ratio is {ratio}; choose a number above 0, at most 1")
    return even_positions(poses, max(round(samples / ratio), samples))[:samples]


def bezier_curve(start: float, end: float, samples: int) -> Float64[Tensor, "2 samples"]:
    """Evaluate the cubic Bezier curve with control points (0, 0), (start, 0), (end, 1), (1, 1) at even parameters."""
    t = torch.linspace(0, 1, samples, dtype=torch.float64)
    rising, falling = 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2
    return torch.stack([rising * start + falling * end + t**3, falling + t**3])


def bezier_positions(poses: int, start: float, end: float) -> Float64[Tensor, " poses"]:
    """Ease along the path: progress over time follows `bezier_curve`, one position per pose of the path."""
    time, progress = bezier_curve(start, end, poses)
    wanted = torch.linspace(0, 1, poses, dtype=torch.float64)
    upper = torch.searchsorted(time.contiguous(), wanted, side="left").clamp(1, max(poses - 1, 1)).clamp(max=poses - 1)
    lower = (upper - 1).clamp(min=0)
    weight = ((wanted - time[lower]) / (time[upper] - time[lower]).clamp_min(1e-9)).clamp(0, 1)
    return (torch.lerp(progress[lower], progress[upper], weight) * (poses - 1)).clamp(0, poses - 1)


def there_and_back(poses: Float[Tensor, "frames 4 4"]) -> Float[Tensor, "frames_twice 4 4"]:
    """Append the reversed path; the turning pose appears twice."""
    return torch.cat([poses, poses.flip(0)])


def interpolate_matrices(
    camera_to_world: Float[Tensor, "frames 4 4"], positions: Float[Tensor, " samples"]
) -> Float[Tensor, "samples 4 4"]:
    """Interpolate a path entry by entry, as the published demo does. Compatibility only.

    Rotations shrink between poses that differ in orientation; `interpolate_poses` keeps them rotations.
    """
    lower, upper = positions.floor().long(), positions.ceil().long()
    weight = (positions - lower).to(camera_to_world.dtype)[:, None, None]
    return torch.lerp(camera_to_world[lower], camera_to_world[upper], weight)


def bezier_progress(
    time: Float64[Tensor, " samples"], control: tuple[float, float, float, float]
) -> Float64[Tensor, " samples"]:
    """Evaluate progress over time on the cubic Bezier curve with control points (0, 0), (x1, y1), (x2, y2), (1, 1).

    To the last digit, where `bezier_positions` reproduces the published demo's table. x1 and x2 lie in [0, 1].
    """
    x1, y1, x2, y2 = control

    def curve(t: Float64[Tensor, " samples"], first: float, second: float) -> Float64[Tensor, " samples"]:
        return 3 * (1 - t) ** 2 * t * first + 3 * (1 - t) * t**2 * second + t**3

    low, high = torch.zeros_like(time), torch.ones_like(time)
    for _ in range(60):  # time rises with t, so halving the interval finds it
        middle = (low + high) / 2
        later = curve(middle, x1, x2) > time
        low, high = torch.where(later, low, middle), torch.where(later, middle, high)
    progress = curve((low + high) / 2, y1, y2)
    return torch.where(time <= 0, 0.0, torch.where(time >= 1, 1.0, progress))
