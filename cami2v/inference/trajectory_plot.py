"""Draw camera paths: seen from above, with viewing directions."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor


def trajectory_figure(
    camera_to_world: Mapping[str, Float[Tensor, "frames _rows 4"]], *, inches: float = 3.0, title: str = ""
) -> Figure:
    """Plot paths by label from above (x to the right, z ahead), equal axes, an arrow along each viewing direction.

    Poses are camera-to-world, 3x4 or 4x4, OpenCV axes, all in one coordinate frame. Frame 0 carries a dot.
    """
    figure = Figure(figsize=(inches, inches), layout="constrained")
    axes = figure.add_subplot()
    points, arrows = [], []
    for label, poses in camera_to_world.items():
        matrices = poses.detach().cpu().double().numpy()
        points.append(matrices[:, [0, 2], 3])
        arrows.append((label, matrices[:, [0, 2], 2]))
    everything = np.concatenate(points)
    centre = (everything.max(0) + everything.min(0)) / 2
    half_extent = max(float((everything.max(0) - everything.min(0)).max()) / 2 * 1.25, 1e-3)
    for index, (path, (label, forward)) in enumerate(zip(points, arrows, strict=True)):
        color = f"C{index}"
        axes.plot(path[:, 0], path[:, 1], "-", color=color, linewidth=1.5, label=label)
        axes.plot(path[0, 0], path[0, 1], "o", color=color, markersize=5)
        axes.quiver(
            path[:, 0], path[:, 1], forward[:, 0], forward[:, 1],
            color=color, angles="xy", scale_units="xy", scale=4.0 / half_extent, width=0.004, alpha=0.6,
        )  # fmt: skip
    axes.set_xlim(centre[0] - half_extent * 1.4, centre[0] + half_extent * 1.4)
    axes.set_ylim(centre[1] - half_extent * 1.4, centre[1] + half_extent * 1.4)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=6)
    axes.set_xlabel("x (right)", fontsize=7)
    axes.set_ylabel("z (ahead)", fontsize=7)
    if title:
        axes.set_title(title, fontsize=8)
    if len(camera_to_world) > 1:
        axes.legend(fontsize=6, loc="best")
    return figure


def trajectory_image(
    camera_to_world: Mapping[str, Float[Tensor, "frames _rows 4"]], *, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Rasterise `trajectory_figure` to a square image of `size` pixels."""
    figure = trajectory_figure(camera_to_world)
    canvas = FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    image = Image.open(buffer).convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)
