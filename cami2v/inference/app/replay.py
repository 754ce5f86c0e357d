"""A video once more, from the record that its file carries: what visitors hand in is checked before it is obeyed."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cami2v.inference.app.settings import Limits
from cami2v.inference.pipeline import Pipeline
from cami2v.inference.record import Record
from cami2v.inference.request import Request
from cami2v.inference.scene import Depth
from cami2v.inference.settings import Picture, open_picture
from cami2v.inference.source import differing_weights
from cami2v.video import read_comment

MP4 = b"ftyp"
"""From the fifth byte on. Anything else is not opened: FFmpeg follows playlists to other files and addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What made a video, to be done again."""

    request: Request
    picture: Picture
    frames_sha256: str
    record: Record
    """As the file carries it."""

    @classmethod
    def from_file(cls, path: Path, name: str, limits: Limits) -> Replay:
        """Read an mp4 that `cami2v` wrote.

        Raises ValueError in one line for other files, and where its picture is not inside: pictures are not fetched
        from where a record says.
        """
        with path.open("rb") as file:
            if file.read(8)[4:] != MP4:
                raise ValueError(f"{name}: its content is no mp4")
        try:
            record = Record.from_json(read_comment(path), Path(name))
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from error
        if record.image_png is None:
            raise ValueError(f"{name}: does not carry its picture (it was too large); use cami2v sample --replay")
        try:
            with Image.open(io.BytesIO(base64.b64decode(record.image_png)), formats=("PNG",)) as opened:
                if opened.width * opened.height > limits.megapixels * 1e6:
                    raise ValueError(f"{name}: its picture has more than {limits.megapixels:g} megapixels")
                picture = open_picture(opened)[1]
        except (UnidentifiedImageError, OSError, SyntaxError, binascii.Error) as error:
            raise ValueError(f"{name}: its picture cannot be read") from error
        return cls(request=record.request, picture=picture, frames_sha256=record.frames_sha256, record=record)

    def check(self, pipeline: Pipeline, made_by: str, limits: Limits) -> None:
        """Raise ValueError in one line where a model is another one, or the request is beyond the limits."""
        request, own = self.request, pipeline.source.defaults
        key = differing_weights(request.model, pipeline.source.identity)
        if key is not None:
            raise ValueError(
                f"replay: other weights than those of {made_by} made this video ({key}); choose the model that did"
            )
        wanted = {"frames": request.frames, "steps": request.sampler.steps}
        for name, value in wanted.items():
            if value > getattr(limits, name):
                raise ValueError(f"replay: {value} {name}; at most {getattr(limits, name)} are made here")
        if sorted((request.height, request.width)) != sorted((own.height, own.width)) or request.window > own.frames:
            raise ValueError(
                f"replay: {request.window} frames of {request.width}x{request.height} at once; {made_by} makes "
                f"{own.frames} of {own.width}x{own.height}"
            )
        if request.precision != pipeline.precision:
            raise ValueError(f"replay: made in {request.precision}, {made_by} computes in {pipeline.precision} here")

    def depth(self) -> Depth | None:
        """Return the depth of the picture's scene, of a size that `check` judged. Raises ValueError for none."""
        depth = self.record.depth_map()
        if depth is None and self.request.noise_shaping is not None:
            raise ValueError("replay: the picture's scene shaped this video, and the file does not carry its depth")
        return depth

    def verdict(self, again: str) -> str:
        """Say whether it came out the same, by the hash of its frames."""
        if again == self.frames_sha256:
            return "Made again: the frames are identical to the last bit."
        return "Made again: the frames DIFFER. Another device, or other versions of torch, give other last digits."
