"""Captions of pictures by a vision-language model, where its weights are on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from huggingface_hub import try_to_load_from_cache
from PIL import Image

from cami2v.inference.app.models import HeldModels
from cami2v.inference.captioner import Captioner, CaptionerSettings

INDEXES = ("model.safetensors", "model.safetensors.index.json")


class PictureCaptions:
    """Describes a picture on request. The model counts among those that are held."""

    def __init__(self, settings: CaptionerSettings | None, models: HeldModels) -> None:
        self.settings = settings
        self.models = models
        self.missing = why_missing(settings)
        """Why there is no captioner; None: there is one."""

    def describe(self, picture: Image.Image) -> str:
        """Return a caption. Raises ValueError in one line where there is no model, or it cannot be loaded."""
        settings = self.settings
        if settings is None or self.missing is not None:
            raise ValueError(f"captioner: {self.missing}")
        with self.models.using(f"captioner {settings.model}", lambda: Captioner(settings)) as captioner:
            text: str = captioner.describe([np.array(picture)[None]])[0]
        if not text:
            raise ValueError(f"captioner {settings.model}: said nothing about this picture")
        return text


def why_missing(settings: CaptionerSettings | None) -> str | None:
    """Say why a captioner cannot be used; None where its weights are here. Nothing is loaded or fetched."""
    if settings is None:
        return "switched off (captioner=null)"
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        here = (folder / "config.json").is_file() and any((folder / name).is_file() for name in INDEXES)
        return None if here else f"{settings.model} holds no config.json with safetensors"
    cached = [try_to_load_from_cache(settings.model, name, revision=settings.revision) for name in INDEXES]
    if folder.is_absolute() or settings.model.count("/") != 1 or not any(isinstance(path, str) for path in cached):
        return f"the weights of {settings.model} are not on this machine (hf download {settings.model})"
    return None
