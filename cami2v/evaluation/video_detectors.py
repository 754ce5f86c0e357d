"""Networks that turn a video into one feature vector, and what they are told of the video."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cami2v.evaluation.fvd_preprocessing import convention, preprocess

Videos = UInt8[Tensor, "batch 3 frames height width"]


class VideoDetector(nn.Module, ABC):
    """Maps videos of any size to features. Computes in the precision that its weights are in."""

    features: int
    min_frames: int

    @abstractmethod
    def forward(self, videos: Videos) -> Float[Tensor, "batch features"]:
        """Return a vector of `features` numbers per video. Raises ValueError below `min_frames`."""

    def on_weights(self, pixels: Tensor) -> Tensor:
        """Bring pixels to the device and precision of the weights; float32 on the CPU where there are none."""
        weights = next((value for value in self.state_dict().values() if value.is_floating_point()), None)
        return pixels if weights is None else pixels.to(weights.device, weights.dtype)


class ClassifierDetector(VideoDetector):
    """400 outputs of an action classifier, over frames prepared by one of `fvd_preprocessing.CONVENTIONS`."""

    features = 400

    def __init__(self, *, network: nn.Module, preprocessing: str, min_frames: int) -> None:
        super().__init__()
        convention(preprocessing)
        self.network = network.eval().requires_grad_(False)
        self.preprocessing = preprocessing
        self.min_frames = min_frames

    def forward(self, videos: Videos) -> Float[Tensor, "batch features"]:
        """Return the network's outputs for all frames."""
        return self.network(self.on_weights(preprocess(videos, self.preprocessing)))


class TorchScriptDetector(nn.Module):
    """StyleGAN-V's detector: a TorchScript file of the user's, which gives features before the softmax.

    The file is code that runs: open only files you trust. Written from the detector's published call, and tried with a
    stand-in only: the file itself was never at hand. Raises ValueError where the file is absent or no TorchScript.
    """

    def __init__(self, *, path: str | Path) -> None:
        super().__init__()
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file; give the TorchScript detector of StyleGAN-V")
        try:
            self.script = torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            raise ValueError(f"{path}: not a TorchScript file ({str(error).splitlines()[0]})") from error

    def forward(self, videos: Float[Tensor, "batch 3 frames 224 224"]) -> Float[Tensor, "batch 400"]:
        """Return features of videos that are preprocessed already."""
        return self.script(videos, rescale=False, resize=False, return_features=True)
