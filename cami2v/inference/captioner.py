"""Describe a picture or the frames of a clip in words, with a vision-language model of `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from jaxtyping import UInt8
from numpy import ndarray
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from cami2v.checkpoints.hub import ask_hub

Frames = UInt8[ndarray, "_frames _height _width 3"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
"""`auto`: as the weights are stored."""

_UNLOADABLE = (OSError, ImportError, ValueError, KeyError, RuntimeError)
"""What `from_pretrained` raises for files that are not there, packages that are missing and models it does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionerSettings:
    """Which model says what."""

    model: str
    """Name of a repository on the Hugging Face hub, or a folder."""
    revision: str | None
    """Branch, tag or commit of the repository; None: its newest."""
    dtype: DType
    device: str
    """auto: a GPU if there is one; or cpu, cuda, cuda:1 ..."""
    prompt: str
    max_new_tokens: int
    temperature: float
    """0: the likeliest word each time. Above it words are drawn."""
    seed: int

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        if self.max_new_tokens < 1:
            raise ValueError(f"captioner.max_new_tokens={self.max_new_tokens}: must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"captioner.temperature={self.temperature:g}: must be 0 (the likeliest words) or above")
        if not self.prompt.strip():
            raise ValueError("captioner.prompt: is empty; say what the model shall write")


class Captioner:
    """A loaded model, Qwen2-VL or any other that `AutoModelForImageTextToText` knows.

    Raises ValueError in one line where the model is neither here nor to be had, or cannot run here.
    """

    def __init__(self, settings: CaptionerSettings) -> None:
        settings.validate()
        self.settings = settings
        self.device = _device(settings.device)
        self.processor, model = _load(settings)
        self.model: Any = model.to(self.device).eval()
        if getattr(self.processor, "chat_template", None) is None:
            raise ValueError(
                f"captioner.model={settings.model}: has no chat template, so it takes no instructions; "
                "name the -Instruct variant"
            )
        # The words of a shorter prompt must end where those of a longer one do: generation goes on from there.
        self.processor.tokenizer.padding_side = "left"
        self._takes_videos = hasattr(self.processor, "video_processor")

    def describe(self, clips: Sequence[Frames], *, seed: int | None = None) -> list[str]:
        """Return a text for each clip, which may be empty; a single frame is shown as a picture, more as a video.

        All clips have equally many frames, of any sizes. Models that know no videos see them as pictures in order.
        `seed` replaces that of the settings. Raises ValueError for frames that the model cannot take, and where memory
        does not suffice.
        """
        counts = sorted({len(clip) for clip in clips})
        if len(counts) != 1:
            raise ValueError(f"clips of {counts} frames at once; show clips of equally many frames")
        try:
            inputs = self._inputs(clips, as_pictures=counts == [1] or not self._takes_videos)
            with torch.inference_mode(), torch.random.fork_rng(self._devices()):
                torch.manual_seed(self.settings.seed if seed is None else seed)
                tokens = self.model.generate(**inputs, **self._drawing())
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"{self.settings.model} on {self.device}: out of memory with {len(clips)} clips of "
                f"{'x'.join(map(str, clips[0].shape[:3]))} at once; show fewer or smaller frames, or fewer clips"
            ) from error
        new = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [" ".join(text.split()) for text in texts]

    def provenance(self) -> dict[str, Any]:
        """Return everything about the model that a caption depends on."""
        settings = self.settings
        return {
            "model": settings.model,
            "revision": settings.revision,
            "commit": _cached_commit(settings),
            "architecture": type(self.model).__name__,
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
            "prompt": settings.prompt,
            "max_new_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "seed": settings.seed,
            "transformers": transformers.__version__,
        }

    def _inputs(self, clips: Sequence[Frames], *, as_pictures: bool) -> Any:
        shown = [{"type": "image"}] * len(clips[0]) if as_pictures else [{"type": "video"}]
        message = {"role": "user", "content": [*shown, {"type": "text", "text": self.settings.prompt}]}
        text = self.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        pixels = [torch.from_numpy(clip).permute(0, 3, 1, 2) for clip in clips]
        # Which frames are shown was chosen by the caller.
        media: dict[str, Any] = {"videos": pixels, "do_sample_frames": False}
        if as_pictures:
            media = {"images": [list(each) for each in pixels]}
        inputs = self.processor(text=[text] * len(clips), padding=True, return_tensors="pt", **media)
        return inputs.to(self.device)

    def _drawing(self) -> dict[str, Any]:
        drawing: dict[str, Any] = {"max_new_tokens": self.settings.max_new_tokens, "do_sample": False}
        if self.settings.temperature > 0:
            drawing |= {"do_sample": True, "temperature": self.settings.temperature, "top_p": None, "top_k": None}
        else:
            # Published models ship settings for drawing, which would be warned about.
            drawing |= {"temperature": None, "top_p": None, "top_k": None}
        return drawing

    def _devices(self) -> list[int]:
        return [self.device.index or 0] if self.device.type == "cuda" else []


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"captioner.device={name}: no such device; use auto, cpu, cuda or cuda:<number>") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"captioner.device={name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def _load(settings: CaptionerSettings) -> tuple[Any, nn.Module]:
    """Return processor and model; raises ValueError in one line, whatever stands in the way."""
    name, revision = settings.model, settings.revision
    where = f"captioner.model={name}{f' at {revision}' if revision else ''}"
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise ValueError(f"{where}: no such folder; give one with config.json, or <owner>/<name> on the hub")
    try:
        return _parts(str(folder) if folder.is_dir() else name, revision, settings.dtype, local=True)
    except _UNLOADABLE as error:
        if folder.is_dir() or not isinstance(error, OSError):
            raise ValueError(f"{where}: cannot be loaded ({_reason(error)})") from error
    # Asked first: without a network `from_pretrained` would try for minutes.
    try:
        listed = ask_hub(name, revision=revision)
    except ValueError as error:
        raise ValueError(
            f"{where}: not on this machine, and not to be had ({error}); give a folder with the model, or fetch it "
            f"where there is a network: hf download {name}"
        ) from error
    try:
        commit = next((file.revision for file in listed.values()), revision)
        return _parts(name, commit, settings.dtype, local=False)
    except _UNLOADABLE as error:
        raise ValueError(f"{where}: cannot be loaded ({_reason(error)})") from error


def _parts(name: str, revision: str | None, dtype: DType, *, local: bool) -> tuple[Any, nn.Module]:
    which: dict[str, Any] = {"revision": revision, "local_files_only": local, "trust_remote_code": False}
    processor = AutoProcessor.from_pretrained(name, **which)
    return processor, AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, **which)


def _cached_commit(settings: CaptionerSettings) -> str | None:
    """Return the commit of a model that came from the hub; None for a folder."""
    if Path(settings.model).expanduser().is_dir():
        return None
    config = try_to_load_from_cache(settings.model, "config.json", revision=settings.revision)
    return Path(config).parent.name if isinstance(config, str) else None


def _reason(error: BaseException) -> str:
    """Return what transformers says first; advice over several lines follows."""
    return f"{type(error).__name__}: {' '.join(str(error).strip().split(chr(10), 1)[0].split()):.240}"
