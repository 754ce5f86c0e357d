"""What a video file carries so that it can be made again: its request, its image, and a hash of its frames."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from cami2v.inference.pipeline import Generated
from cami2v.inference.request import Request
from cami2v.inference.scene import Depth
from cami2v.inference.settings import Picture, open_picture, picture_levels

KEY = "cami2v"
LARGEST_IMAGE_BYTES = 8_000_000
"""Of an image as PNG that a video file still carries; a larger one is named, not carried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A generated video without its frames."""

    request: Request
    frames_sha256: str
    """Of the frames before compression."""
    image_png: str | None
    """The image in base64; None: too large."""
    depth: str | None = None
    """The depth map of its scene, at the video's size: float32, row by row, compressed, in base64; None: no scene."""

    @classmethod
    def of(cls, generated: Generated) -> Record:
        """Write a video down."""
        buffer = io.BytesIO()
        Image.fromarray(picture_levels(generated.picture)).save(buffer, "PNG", optimize=True)
        data = buffer.getvalue()
        return cls(
            request=generated.request,
            frames_sha256=frames_sha256(generated.frames),
            image_png=base64.b64encode(data).decode() if len(data) <= LARGEST_IMAGE_BYTES else None,
            depth=None if generated.depth is None else _packed(generated.depth),
        )

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps({KEY: dataclasses.asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, source: Path) -> Record:
        """Read what `to_json` wrote. Raises ValueError, naming `source`, for anything else."""
        try:
            values = json.loads(text or "")[KEY]
            request = Request.from_json(json.dumps(values["request"]), f"{source}: request")
            return cls(
                request=request,
                frames_sha256=values["frames_sha256"],
                image_png=values["image_png"],
                depth=values.get("depth"),
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{source}: carries no record of how it was made; only single videos that cami2v sample wrote do, and "
                "only until something writes them anew"
            ) from error

    def picture(self, image: str | Path | None) -> Picture:
        """Return the image: the one given, else the one carried, else the one that the request names.

        Raises ValueError where it cannot be read.
        """
        if image is not None:
            return open_picture(image)[1]
        if self.image_png is not None:
            return open_picture(Image.open(io.BytesIO(base64.b64decode(self.image_png))))[1]
        return open_picture(self.request.image)[1]

    def depth_map(self) -> Depth | None:
        """Return the depth map, if there is one. Raises ValueError for one that is damaged or of another size."""
        if self.depth is None:
            return None
        size = (self.request.height, self.request.width)
        expected = 4 * size[0] * size[1]
        try:
            # Never more than it should be, whatever a file from somewhere else unfolds to.
            data = zlib.decompressobj().decompress(base64.b64decode(self.depth), expected + 1)
        except (zlib.error, binascii.Error) as error:
            raise ValueError(f"the record's depth map cannot be read ({error})") from error
        if len(data) != expected:
            raise ValueError(f"the record's depth map is not of {size[0]}x{size[1]} pixels")
        return torch.from_numpy(np.frombuffer(data, np.float32).reshape(size).copy())


def _packed(depth: Depth) -> str:
    return base64.b64encode(zlib.compress(depth.numpy().astype(np.float32).tobytes(), 9)).decode()


def frames_sha256(frames: UInt8[np.ndarray, "frames height width 3"]) -> str:
    """Hash a video's size and its pixels."""
    return hashlib.sha256(f"{frames.shape}".encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()
