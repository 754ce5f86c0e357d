"""`cami2v app`: what it offers, and whom it lets in."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from cami2v.inference.app.captions import PictureCaptions
from cami2v.inference.app.models import HeldModels
from cami2v.inference.captioner import CaptionerSettings
from launch.app import AppSettings, choices_of, start_app
from launch.compose import compose_config, plain, settings
from launch.untrained import untrained_source
from tests.launch.untrained import random_run
from tests.tiny_captioner import write_tiny_captioner

SMALL = [
    "data.frames=4", "data.resolution=[32,32]", "sampler.steps=2", "backbone.widths=[32,64]", "backbone.head_width=16",
    "camera.pose_encoder.num_heads=2",
]  # fmt: skip


def app_settings(*overrides: str) -> AppSettings:
    config = plain(compose_config("app", overrides))
    own = {key: config[key] for key in AppSettings.__dataclass_fields__}
    chosen: AppSettings = settings(own, AppSettings, "app")
    return chosen


def offered(*overrides: str, runs: Path = Path("nowhere")) -> list[tuple[str, str]]:
    return [(choice.method, choice.checkpoint) for choice in choices_of(app_settings(*overrides), runs)]


def test_with_nothing_configured_untrained_models_say_what_they_are(tmp_path: Path) -> None:
    choices = choices_of(app_settings(), tmp_path)
    assert [choice.method for choice in choices] == ["cami2v", "cameractrl", "motionctrl"]
    assert all("UNTRAINED" in choice.note for choice in choices)
    pipeline = choices[2].load()
    folder = tmp_path / "app/models/untrained-motionctrl"
    assert pipeline.source.identity["path"] == str(folder)
    same = untrained_source("motionctrl", folder)
    assert same.identity["sha256"] == pipeline.source.identity["sha256"], "its videos can be repeated"
    (folder / "pipeline.json").write_text('{"format": 0}')
    assert untrained_source("motionctrl", folder).defaults == same.defaults, "of another version: made anew"


def test_a_run_offers_its_checkpoints_newest_first_and_their_averages(tmp_path: Path) -> None:
    run = random_run(tmp_path / "demo" / "train", SMALL)
    first = run / "checkpoints" / "step-00000001"
    shutil.copytree(first, run / "checkpoints" / "step-00000020")
    save_file(load_file(first / "trainable.safetensors"), first / "ema.safetensors")
    steps = ["train, step 20", "train, step 1", "train, step 1, average"]
    assert offered(f"checkpoint={run}") == [("CamI2V", step) for step in steps]
    assert offered(runs=tmp_path)[:3] == [("cami2v", step) for step in steps]
    assert "make demo" in choices_of(app_settings(), tmp_path)[0].note
    assert offered(f"methods={{mine: {first}, others: {{a: {run}, b: {{checkpoint: {first}, weights: ema}}}}}}") == [
        ("mine", "step-00000001"),
        *[("others", step.replace("train", "a")) for step in steps],
        ("others", "b"),
    ]
    pipeline = choices_of(app_settings(f"checkpoint={run}"), tmp_path)[2].load()
    assert pipeline.source.identity["weights"] == "ema.safetensors"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["checkpoint=nowhere"], "checkpoint=nowhere: does not exist"),
        (["checkpoint=a", "methods={b: c}"], "checkpoint and methods: got both"),
        (["methods={b: {checkpoint: c, weight: ema}}"], "methods.b.weight: no such key .* did you mean 'weights'"),
        (["held_models=0"], "held_models=0: must be at least 1"),
        (["server.share=true"], "server.share=true: others reach the app then; give server.users"),
        (["server.host=0.0.0.0"], "server.host=0.0.0.0: others reach the app then"),
        (["server.port=70000"], "server.port=70000: choose 1 to 65535"),
        (["limits.steps=0"], "limits.steps=0: must be above 0"),
        (["preview.wall_distance=-1"], "preview.wall_distance=-1.0: must be above 0"),
    ],
)
def test_wrong_settings_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        offered(*overrides)


def test_who_may_come_from_outside_is_asked_for_a_password(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("ann:a:b\n\nbob:c\n")
    server = app_settings("server.host=0.0.0.0", f"server.users={users}").server
    assert server.passwords() == [("ann", "a:b"), ("bob", "c")]
    assert app_settings("server.host=0.0.0.0", "server.open_to_all=true").server.passwords() is None
    users.write_text("nobody\n")
    with pytest.raises(ValueError, match="expected lines user:password"):
        server.passwords()


def test_without_gradio_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'cami2v\[app\]'"):
        start_app(compose_config("app"), tmp_path)


def test_the_captioner_describes_where_its_weights_are_and_counts_as_a_model(tmp_path: Path) -> None:
    models = HeldModels(1)
    values: dict[str, Any] = {
        "model": str(write_tiny_captioner(tmp_path / "captioner")), "revision": None, "dtype": "auto", "device": "cpu",
        "prompt": "Say what this is.", "max_new_tokens": 8, "temperature": 0.0, "seed": 0,
    }  # fmt: skip
    captions = PictureCaptions(CaptionerSettings(**values), models)
    assert captions.missing is None
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    assert captions.describe(picture) == captions.describe(picture)
    with models.using("a video model", object):
        assert models.names == ["a video model"]
    (tmp_path / "captioner" / "model.safetensors").unlink()
    gone = PictureCaptions(CaptionerSettings(**values), models)
    assert gone.missing is not None
    with pytest.raises(ValueError, match="holds no config.json with safetensors"):
        gone.describe(picture)
    published = CaptionerSettings(**values | {"model": "Qwen/Qwen2-VL-7B-Instruct"})
    assert "are not on this machine (hf download" in str(PictureCaptions(published, models).missing)
    assert PictureCaptions(None, models).missing == "switched off (captioner=null)"
