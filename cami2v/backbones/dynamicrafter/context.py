"""What every block of the U-Net sees besides its feature map."""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from cami2v.batch import Conditioning
from cami2v.camera_control.base import CameraCondition, TokenGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockContext:
    """Step embedding, condition tokens and camera of one forward pass."""

    batch: int
    frames: int
    embedding: Float[Tensor, "batch embedding"]
    text_tokens: Float[Tensor, "batch text_tokens context"]
    image_tokens: Float[Tensor, "batch_frames image_tokens context"]
    camera: CameraCondition | None

    def grid(self, height: int, width: int) -> TokenGrid:
        """Describe temporal tokens of a `height` x `width` feature map."""
        return TokenGrid(batch=self.batch, frames=self.frames, height=height, width=width)


def split_image_tokens(
    conditioning: Conditioning, frames: int
) -> Float[Tensor, "batch_frames tokens_per_frame context"]:
    """Give every frame its own group of image tokens.

    Raises ValueError where the tokens do not divide into one group per frame.
    """
    count = conditioning.image_tokens.shape[1]
    if count == 0 or count % frames:
        raise ValueError(
            f"conditioning.image_tokens: got {count} tokens for {frames} frames; expected the same number of tokens "
            "for every frame (the image projector's queries per frame times the frames)"
        )
    return rearrange(conditioning.image_tokens, "b (f n) c -> (b f) n c", f=frames)
