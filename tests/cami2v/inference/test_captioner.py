"""A model of Qwen2-VL's architecture says something about what it is shown, and the same alone as among others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cami2v.inference.captioner import Captioner, CaptionerSettings
from tests.tiny_captioner import write_tiny_captioner

SETTINGS = CaptionerSettings(
    model="tests/none",
    revision=None,
    dtype="float32",
    device="cpu",
    prompt="a kitchen with?",
    max_new_tokens=8,
    temperature=0.0,
    seed=0,
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> CaptionerSettings:
    return replace(SETTINGS, model=str(write_tiny_captioner(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def captioner(settings: CaptionerSettings) -> Captioner:
    return Captioner(settings)


def clip(seed: int, frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def test_a_clip_gets_the_same_words_alone_and_among_clips_of_other_shapes(captioner: Captioner) -> None:
    clips = [clip(0, 4, 56, 84), clip(1, 4, 112, 84), clip(2, 4, 56, 56)]
    together = captioner.describe(clips)
    assert together == [captioner.describe([each])[0] for each in clips]
    assert len(set(together)) == 3, "the words must depend on the frames"
    assert all(together)


def test_a_picture_is_described_too(captioner: Captioner) -> None:
    pictures = [clip(seed, 1, 84, 84) for seed in range(3)]
    assert captioner.describe(pictures) == [captioner.describe([each])[0] for each in pictures]
    with pytest.raises(ValueError, match="clips of .1, 4. frames at once"):
        captioner.describe([pictures[0], clip(0, 4, 56, 56)])


def test_drawn_words_repeat_with_their_seed_and_leave_the_random_state_alone(settings: CaptionerSettings) -> None:
    drawing = Captioner(replace(settings, temperature=1.0))
    frames = [clip(0, 2, 56, 56)]
    before = torch.random.get_rng_state()
    said = drawing.describe(frames, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert drawing.describe(frames, seed=1) == said
    assert {drawing.describe(frames, seed=seed)[0] for seed in range(4)} != {said[0]}


def test_provenance_names_the_model_and_the_prompt(captioner: Captioner) -> None:
    made_with = captioner.provenance()
    assert made_with["architecture"] == "Qwen2VLForConditionalGeneration"
    assert made_with["prompt"] == "a kitchen with?"
    assert made_with["commit"] is None, "a folder has none"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "owner/none-such"}, "not on this machine, and not to be had .*HF_HUB_OFFLINE is set"),
        ({"model": "./none-such"}, "captioner.model=./none-such: no such folder"),
        ({"model": "."}, "captioner.model=.: cannot be loaded"),
        ({"device": "cuda:7"}, "captioner.device=cuda:7: this machine has"),
        ({"device": "gpu"}, "captioner.device=gpu: no such device"),
        ({"max_new_tokens": 0}, "captioner.max_new_tokens=0: must be at least 1"),
        ({"prompt": " "}, "captioner.prompt: is empty"),
    ],
)
def test_what_cannot_run_is_one_line(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=message) as caught:
        Captioner(replace(SETTINGS, **change))
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repository: str, *, revision: str | None) -> None:
        raise ValueError(f"{repository}: no connection to https://huggingface.co (ConnectError: unreachable)")

    monkeypatch.setattr("cami2v.inference.captioner.ask_hub", unreachable)
    with pytest.raises(ValueError, match="not to be had .*no connection.*; give a folder .*hf download owner/none"):
        Captioner(replace(SETTINGS, model="owner/none"))
