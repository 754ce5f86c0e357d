"""`cami2v data encode` and training on its caches, with the real towers, very small."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from cami2v.condition_frame import ConditionFrame
from cami2v.model import VideoDiffusion
from data_pipeline.loader import ClipLoader
from launch.build import build_model
from launch.compose import compose_config, instantiate_part
from launch.data_encode import run as encode
from launch.encoders import check_cache
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.launch.test_train import rows, train
from tests.tiny_models import randomise

TOWERS = ["first_stage=autoencoder_kl", "first_stage.channels=32", "data.resolution=[64,64]", "data.frames=4"]
MODEL = [
    *TOWERS,
    "backbone.widths=[32,64]",
    "backbone.head_width=16",
    # Enough for all four kinds of dropped conditions in a few samples.
    "diffusion.condition_drop_probability=0.2",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("encode")
    raw = clips_folder(place / "raw", clips=6, frames=16, splits=["train"] * 4 + ["test"] * 2)
    pack_quietly(raw, place / "set")
    run_encode(place, "fp32", "encode.image_tokens=true", "encode.dtype=fp32")
    return place


@pytest.fixture(scope="module")
def model() -> VideoDiffusion:
    built = build_model(compose_config("train", MODEL)).eval()
    randomise(built.backbone)
    randomise(built.camera)
    return built


def run_encode(place: Path, name: str, *overrides: str) -> None:
    settings = [*TOWERS, "encode.num_workers=0", "encode.splits=[train]", *overrides]
    encode(compose_config("data_encode", [f"shards={place}/set", f"output={place}/{name}", *settings]))


def loader(place: Path, cache: str | None, stride: str, workers: int = 0) -> ClipLoader:
    data = compose_config("train", [*MODEL, f"data={place}/set", f"data.frame_stride={stride}"]).data
    runtime: dict[str, Any] = {}
    if cache is not None:
        runtime = {"cache": str(place / cache), "condition_frame": ConditionFrame(random=True)}
    data.num_workers = workers
    return instantiate_part(data, "data", **runtime)


def losses(model: VideoDiffusion, source: ClipLoader, *, steps: int, world_size: int = 1) -> list[float]:
    found = []
    for rank in range(world_size):
        stream = source.stream(micro_batch_size=2, rank=rank, world_size=world_size, seed=7, start=0)
        for batch in islice(stream, steps):
            with torch.no_grad():
                found += model(batch).loss_per_sample.tolist()
    return found


def forbid_towers(model: VideoDiffusion, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a frozen tower was called")

    for name in names:
        tower, _, method = name.partition(".")
        monkeypatch.setattr(getattr(model, tower), method, refuse)


@pytest.mark.parametrize(("stride", "workers", "world_size", "steps"), [("[1,5]", 2, 1, 5), ("3", 0, 2, 2)])
def test_losses_with_an_fp32_cache_are_those_of_the_videos(
    folder: Path,
    model: VideoDiffusion,
    monkeypatch: pytest.MonkeyPatch,
    stride: str,
    workers: int,
    world_size: int,
    steps: int,
) -> None:
    expected = losses(model, loader(folder, None, stride), steps=steps, world_size=world_size)
    forbid_towers(model, monkeypatch, "first_stage.moments", "text_encoder.encode", "image_encoder.encode")
    cached = losses(model, loader(folder, "fp32", stride, workers), steps=steps, world_size=world_size)
    assert cached == pytest.approx(expected, rel=1e-5)
    assert len(set(expected)) == len(expected)


def test_an_fp16_cache_without_image_tokens_is_within_its_rounding(
    folder: Path, model: VideoDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_encode(folder, "fp16")
    expected = losses(model, loader(folder, None, "[1,5]"), steps=3)
    forbid_towers(model, monkeypatch, "first_stage.moments", "text_encoder.encode")
    cached = losses(model, loader(folder, "fp16", "[1,5]"), steps=3)
    assert cached == pytest.approx(expected, rel=1e-3)
    assert cached != expected


def test_a_cache_of_other_towers_or_for_another_conditioning_frame_is_refused(
    folder: Path, model: VideoDiffusion
) -> None:
    source = loader(folder, "fp32", "1")
    cache = source.cache
    assert cache is not None
    config = compose_config("train", MODEL)
    check_cache(config, model, cache, ["backbone.output.weight"])
    for name, change in (
        ("first_stage", "first_stage.scale=0.2"), ("text", "encoders.text.seed=1"), ("image", "encoders.image.seed=1"),
    ):  # fmt: skip
        changed = compose_config("train", [*MODEL, change])
        with pytest.raises(ValueError, match=f"encoded by another {name} encoder .* run `cami2v data encode shards="):
            check_cache(changed, build_model(changed), cache, [])
    with pytest.raises(ValueError, match="trainer.trainable trains 1 weights of the towers that the cache stands in"):
        check_cache(config, model, cache, ["text_encoder.tower.bias"])
    source.condition_frame = ConditionFrame(random=False)
    with pytest.raises(ValueError, match="diffusion.random_condition_frame=True draws"):
        losses(model, source, steps=2)


@pytest.mark.slow
def test_cami2v_train_on_a_cache_equals_training_on_videos_and_resumes(folder: Path, tmp_path: Path) -> None:
    cached = ["name=cached", f"data.cache={folder}/fp32", "data.num_workers=2"]
    settings = [*MODEL, "trainer.max_steps=2", "trainer.validate_every_steps=2", "trainer.trainable=camera"]
    done = train(tmp_path, folder / "set", *settings, "name=videos")
    assert done.returncode == 0, done.stderr[-3000:]
    first = train(tmp_path, folder / "set", *settings, *cached, "trainer.max_steps=1", "trainer.validate_every_steps=0")
    assert first.returncode == 0, first.stderr[-3000:]
    second = train(tmp_path, folder / "set", *settings, *cached, "resume=auto")
    assert second.returncode == 0, second.stderr[-3000:]
    for key in ("loss", "gradient_norm"):
        assert rows(tmp_path / "cached", key) == pytest.approx(rows(tmp_path / "videos", key), rel=1e-5), key
    assert rows(tmp_path / "cached", "validation_loss")[-1] == pytest.approx(
        rows(tmp_path / "videos", "validation_loss")[-1], rel=1e-4
    )
