"""Pictures that ship with the app: rooms of the synthetic world, with their depth (tools/render_app_examples.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cami2v.inference.app.preview import Subject
from cami2v.signature import build_settings

FOLDER = Path(__file__).with_name("examples")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A picture, and a path that suits it."""

    name: str
    caption: str
    field_of_view_degrees: float
    motion: str
    amount: float
    distance: float
    together: str = ""

    @property
    def picture(self) -> Path:
        """Return its file."""
        return FOLDER / f"{self.name}.jpg"

    def subject(self) -> Subject:
        """Read picture and depth."""
        with Image.open(FOLDER / f"{self.name}.depth.png") as depth, Image.open(self.picture) as picture:
            return Subject(
                picture=picture.convert("RGB"), name=self.name, depth=np.asarray(depth, dtype=np.float32) / 1000
            )


def examples() -> list[Example]:
    """Return all of them."""
    listed = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
    return [build_settings(Example, each, f"examples[{number}]") for number, each in enumerate(listed)]
