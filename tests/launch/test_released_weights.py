"""Released weights through the commands: sampled from, evaluated, trained from, resumed, sampled from again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from cami2v.checkpoints.named_weights import open_weights
from cami2v.video import read_frames
from launch.build import build_model
from launch.compose import compose_config, expand_shorthands, read_config
from launch.evaluate import run as evaluate
from launch.load_model import LoadedModel, Source, load_model
from launch.sample import run as sample
from launch.train import train
from launch.training_plan import prepare
from tests.cami2v.checkpoints.released_files import as_released, save, split
from tests.cami2v.training.conftest import one_process as one_process  # a fixture, used by name
from tests.cami2v.training.toys import forget_engine
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.warm_processes import run_module
from tools.convert_checkpoint import main as convert

EXPERIMENT = "cami2v_256"
# As small as a model goes that still has every part of a released file.
SMALL = [
    "size=tiny", "backbone.widths=[32,64]", "backbone.attention_downsamples=[1]", "backbone.residual_blocks=1",
    "encoders.text.layers=2", "encoders.image.layers=1", "encoders.projector.depth=1", "first_stage.residual_blocks=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write a base, as Lightning wraps it, and a flat delta."""
    folder = tmp_path_factory.mktemp("released")
    model = build_model(compose_config("train", [f"experiment={EXPERIMENT}", *SMALL]))
    base, delta = split(as_released(model))
    return save(folder / "model.ckpt", base, "state_dict"), save(folder / "delta.pt", delta)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    source = clips_folder(folder / "raw", splits=["train"] * 4 + ["test"] * 2)
    return pack_quietly(source, folder / "shards").folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "room.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)).save(path)
    return path


def load(checkpoint: str | Path | list[str], experiment: str | None = None, **changes: object) -> LoadedModel:
    values: dict = {
        "checkpoint": str(checkpoint) if isinstance(checkpoint, Path) else checkpoint, "from_experiment": experiment,
        "overrides": SMALL if experiment else [], "base": None, "load_report": None, "attention": None,
        "weights": "trained",
    }  # fmt: skip
    return load_model(Source(**(values | changes)))


def listed(overrides: list[str]) -> str:
    return "overrides=[" + ",".join(json.dumps(item) for item in overrides) + "]"


def test_sample_from_a_base_and_a_delta(files: tuple[Path, Path], image: Path, tmp_path: Path) -> None:
    places = [f"checkpoint={files[0]},{files[1]}", f"image={image}", f"output={tmp_path}"]
    more = [f"experiment={EXPERIMENT}", listed(SMALL), f"load_report={tmp_path / 'names.txt'}", "steps=1"]
    sample(compose_config("sample", [*places, *more, "trajectory=pan_left"]))
    assert read_frames(tmp_path / "room-pan_left-seed0.mp4").shape == (4, 64, 128, 3)
    report = (tmp_path / "names.txt").read_text()
    assert re.search(r"from base .*model.ckpt .*\n.*from delta .*delta.pt ", report)
    assert re.search(r"matched     backbone\..*camera\.epipolar\..* \[delta.pt\]", report)


@pytest.mark.slow
def test_evaluate_released_weights(files: tuple[Path, Path], shards: Path, tmp_path: Path) -> None:
    overrides = [f"checkpoint={files[0]},{files[1]}", f"experiment={EXPERIMENT}", listed(SMALL), f"data={shards}"]
    stages = ["evaluation.stages=[generate]", "evaluation.clips=1", f"paths.runs={tmp_path}", "data.frame_stride=1"]
    evaluate(compose_config("evaluate", [*overrides, *stages]))
    folder = tmp_path / "evaluate" / "delta-test"
    assert len(list(folder.glob("videos/generated/*.mp4"))) == 1
    checkpoint = json.loads((folder / "evaluation.json").read_text())["checkpoint"]
    assert [file["role"] for file in checkpoint["files"]] == ["base", "delta"]
    assert checkpoint["experiment"] == EXPERIMENT


def test_the_values_arrive(files: tuple[Path, Path]) -> None:
    loaded = load([str(file) for file in files], EXPERIMENT)
    stored = [open_weights(file) for file in files]
    for name, parameter in loaded.model.named_parameters():
        source = next(weights for weights in stored if name in weights.ours)
        assert torch.equal(parameter.detach().cpu(), source.read(name).float()), name


@pytest.mark.parametrize(
    ("checkpoint", "changes", "message"),
    [
        ("{base}", {}, "no run folder but released weights, which do not know their model; add experiment=<name> (one"),
        ("{base}", {"experiment": "cami2v"}, "experiment=cami2v: no such preset; did you mean 'cami2v_"),
        ("{base}", {"experiment": EXPERIMENT}, "it holds no camera weights, so it is a base"),
        ("{delta}", {"experiment": EXPERIMENT}, "give its base before it (<base>,<delta>)"),
        ("{delta},{base}", {"experiment": EXPERIMENT}, "the base comes first"),
        ("{base},{base}.gone", {"experiment": EXPERIMENT}, "checkpoint={base}.gone: does not exist"),
        ("{base},{delta}", {"experiment": "cami2v_512"}, "256 model (with the learned scales of image attention)"),
        ("{base},{delta}", {"experiment": "cameractrl_256"}, "it holds CamI2V or RealCam-I2V's camera modules"),
        ("{base}", {"experiment": EXPERIMENT, "base": "x"}, "base=x: belongs to runs"),
        ("", {}, "checkpoint=: does not exist"),
        ("{folder}", {}, "neither a run folder (config.yaml) nor a DeepSpeed checkpoint"),
    ],
)
def test_what_a_user_got_wrong_is_one_line(
    files: tuple[Path, Path], checkpoint: str, changes: dict[str, str], message: str
) -> None:
    names = {"base": str(files[0]), "delta": str(files[1]), "folder": str(files[0].parent)}
    with pytest.raises(ValueError, match=re.escape(message.format(**names))) as refusal:
        load(checkpoint.format(**names), **changes)
    assert "\n" not in str(refusal.value)


def test_a_refusal_leaves_the_names_in_the_report(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the weights of this model"):
        load(files[0], EXPERIMENT, load_report=tmp_path / "names.txt")
    assert "missing     camera.pose_encoder." in (tmp_path / "names.txt").read_text()


def test_files_joined_by_commas_are_a_list_and_a_sweep_stays_one() -> None:
    assert expand_shorthands(["checkpoint=a/b.ckpt,c d.pt"]) == ['checkpoint=[a/b.ckpt,"c d.pt"]']
    assert expand_shorthands(["init_from=[a,b]", "seed=1,2"]) == ["init_from=[a,b]", "seed=1,2"]
    assert expand_shorthands(["-m", "checkpoint=a,b"]) == ["-m", "checkpoint=a,b"]


@pytest.fixture
def trained(tmp_path: Path, files: tuple[Path, Path], shards: Path, one_process: None) -> Path:
    """Train two steps from the base, stop, continue for a third without naming the base again."""
    for steps, start in ((2, f"init_from={files[0]}"), (3, "resume=auto")):
        config = training_config(tmp_path, shards, start, f"trainer.max_steps={steps}")
        train(config, prepare(config))
        forget_engine()
    return tmp_path / "run"


def training_config(runs: Path, shards: Path, *overrides: str):
    return compose_config("train", training_arguments(runs, shards, *overrides))


def training_arguments(runs: Path, shards: Path, *overrides: str) -> list[str]:
    quiet = ["logging=off", "trainer.validate_every_steps=0", "trainer.checkpoint_every_steps=1", "name=run"]
    small = [*SMALL, "trainer.global_batch_size=1", "guards.camera_alive=off", "data.frame_stride=1"]
    return [f"experiment={EXPERIMENT}", *small, *quiet, f"data={shards}", f"paths.runs={runs}", *overrides]


@pytest.mark.slow
def test_train_from_a_released_base_resume_and_sample(
    trained: Path, files: tuple[Path, Path], shards: Path, tmp_path: Path
) -> None:
    assert read_config(trained / "config.yaml").init_from == str(files[0])
    assert "missing (new camera modules)" in (trained / "loaded_weights.txt").read_text()
    weights = load_file(trained / "checkpoints/step-00000003/trainable.safetensors")
    base = open_weights(files[0])
    assert not weights.keys() & base.ours.keys()

    loaded = load(trained)
    for name, parameter in loaded.model.named_parameters():
        expected = weights[name] if name in weights else base.read(name).float()
        assert torch.equal(parameter.detach().cpu(), expected), name
    assert loaded.identity["base_sha256"] == [base.archive.sha256()]

    # Three steps at once give the same weights as two and one.
    whole = training_config(tmp_path / "whole", shards, f"init_from={files[0]}", "trainer.max_steps=3")
    train(whole, prepare(whole))
    forget_engine()
    again = load_file(tmp_path / "whole/run/checkpoints/step-00000003/trainable.safetensors")
    assert all(torch.equal(again[name], value) for name, value in weights.items())


@pytest.mark.slow
def test_a_base_that_moved_is_named_again_and_another_one_is_noticed(
    trained: Path, files: tuple[Path, Path], shards: Path, tmp_path: Path
) -> None:
    moved, other = tmp_path / "moved.ckpt", tmp_path / "other.ckpt"
    moved.write_bytes(files[0].read_bytes())
    archive = open_weights(files[0]).archive
    weights = {name: archive.read(name) for name in archive.tensors}
    save(other, weights | {"model.diffusion_model.out.2.bias": torch.zeros(4).half()})
    config = read_config(trained / "config.yaml")
    config.init_from = str(tmp_path / "gone.ckpt")
    OmegaConf.save(config, trained / "config.yaml")

    with pytest.raises(
        ValueError, match=r"config.yaml: init_from=.*gone.ckpt: does not exist; .*base=<file> to sample"
    ):
        load(trained)
    with pytest.raises(ValueError, match="was trained on other frozen weights than this model has"):
        load(trained, base=str(other))
    assert load(trained, base=str(moved)).config.name == "run"
    with pytest.raises(ValueError, match="experiment=cami2v_256: checkpoint=.* is a run and has a config of its own"):
        load(trained, EXPERIMENT)

    with pytest.raises(ValueError, match=r"init_from=.*gone.ckpt: does not exist"):
        prepare(training_config(tmp_path, shards, "resume=auto", "trainer.max_steps=4"))
    config = training_config(tmp_path, shards, f"resume={trained}", f"init_from={other}", "trainer.max_steps=4")
    with pytest.raises(ValueError, match="the frozen weights of this run differ"):
        train(config, prepare(config))
    forget_engine()
    config = training_config(tmp_path, shards, f"resume={trained}", f"init_from={moved}", "trainer.max_steps=4")
    train(config, prepare(config))
    assert (trained / "checkpoints/step-00000004").is_dir()
    assert read_config(trained / "config.yaml").init_from == str(moved)


@pytest.mark.slow
def test_a_run_started_from_a_run_finds_the_base_of_both(
    trained: Path, files: tuple[Path, Path], shards: Path, tmp_path: Path
) -> None:
    config = training_config(tmp_path / "second", shards, f"init_from={trained}", "trainer.max_steps=1")
    train(config, prepare(config))
    forget_engine()
    second = tmp_path / "second" / "run"
    assert read_config(second / "config.yaml").init_from == str(
        trained / "checkpoints/step-00000003/trainable.safetensors"
    )
    base = open_weights(files[0])
    weights = load_file(second / "checkpoints/step-00000001/trainable.safetensors")
    for name, parameter in load(second).model.named_parameters():
        assert torch.equal(parameter.detach().cpu(), weights[name] if name in weights else base.read(name).float())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_a_deepspeed_run_exports_to_one_strict_file(
    files: tuple[Path, Path], shards: Path, tmp_path: Path, engine: str
) -> None:
    # In a process of its own: DeepSpeed takes one engine per process.
    start = [f"init_from={files[0]}", "trainer.max_steps=1", f"engine={engine}"]
    done = run_module("launch.train", training_arguments(tmp_path, shards, *start))
    assert done.returncode == 0, done.stderr[-3000:]
    ours, released = tmp_path / "whole.safetensors", tmp_path / "whole.pt"
    assert convert(["export", str(tmp_path / "run"), str(ours)]) == 0
    assert convert(["export", str(tmp_path / "run"), str(released), "--released-names"]) == 0
    expected = dict(load(tmp_path / "run").model.named_parameters())
    for path in (ours, released):
        model = load(path, EXPERIMENT).model
        assert all(torch.equal(value, expected[name]) for name, value in model.named_parameters())
    # With the base's left-overs, so that the published loader finds all it asks for.
    assert open_weights(released).unused.keys() == open_weights(files[0]).unused.keys()


@pytest.mark.slow
def test_trained_weights_over_their_base_and_over_another(
    trained: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    weights = trained / "checkpoints/step-00000003/trainable.safetensors"
    expected = dict(load(trained).model.named_parameters())
    model = load([str(files[0]), str(weights)], EXPERIMENT).model
    assert all(torch.equal(value, expected[name]) for name, value in model.named_parameters())
    archive = open_weights(files[0]).archive
    other = {name: archive.read(name) for name in archive.tensors} | {"model.diffusion_model.out.2.bias": torch.ones(4)}
    with pytest.raises(ValueError, match="was trained on another base than the files before it"):
        load([str(save(tmp_path / "other.ckpt", other)), str(weights)], EXPERIMENT)


def test_training_refuses_released_files_before_anything_is_built(
    files: tuple[Path, Path], shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="512 model|256 model"):
        prepare(training_config(tmp_path, shards, f"init_from={files[0]}", "backbone.learnable_image_scale=false"))
    part = save(tmp_path / "part.ckpt", {"model.diffusion_model.out.2.bias": torch.zeros(4)})
    with pytest.raises(
        ValueError, match=r"part.ckpt: not the weights of this model: missing .*give its base before it"
    ):
        prepare(training_config(tmp_path, shards, f"init_from={part}"))
    assert not (tmp_path / "run").exists()
