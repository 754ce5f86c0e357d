"""How metric scales are estimated, and when an estimate is believed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSettings:
    """Which points count, and how well their depths must agree."""

    depth_frames: int
    """Frames per clip whose depth is estimated, evenly from the first on; 1: only the first, as RealCam-I2V does."""
    depth_short_side: int | None
    """Frames are scaled to it for the depth network, pixels square; None: as stored."""
    max_sampson_pixels: float
    min_parallax_degrees: float
    nearest_metres: float
    farthest_metres: float
    """Estimated depths outside do not count: a network saturates at its bounds."""
    min_points: int
    max_spread: float
    """Of the ratios' logarithms: 1.4826 times the median absolute deviation."""
    overwrite: bool
    processes: int | None
    """None: one for each core this process may use."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        for key, low in (("depth_frames", 1), ("depth_short_side", 14), ("min_points", 3), ("processes", 1)):
            value = getattr(self, key)
            if value is not None and value < low:
                raise ValueError(f"scale.{key}={value}: must be at least {low}")
        for key in ("max_sampson_pixels", "min_parallax_degrees", "max_spread"):
            if not getattr(self, key) > 0:
                raise ValueError(f"scale.{key}={getattr(self, key)}: must be above 0")
        if not 0 <= self.nearest_metres < self.farthest_metres:
            raise ValueError(
                f"scale.nearest_metres={self.nearest_metres:g}, scale.farthest_metres={self.farthest_metres:g}: "
                "expected 0 <= nearest < farthest"
            )

    def procedure(self) -> dict[str, Any]:
        """Return the settings that decide the result."""
        return {key: value for key, value in asdict(self).items() if key not in ("overwrite", "processes")}
