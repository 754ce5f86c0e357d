"""`cami2v weights`: the catalogue, a download, and what files are."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cami2v.checkpoints.diagnosis import CAMERA
from cami2v.checkpoints.released_files import RELEASED_FILES, ReleasedFile, find_released, released_with_hash
from cami2v.checkpoints.released_names import released_names, to_released_shape
from launch import weights
from launch.build import build_skeleton
from launch.compose import compose_config, conf_folder
from tests.cami2v.checkpoints.local_hub import Hub, serving

ROOT = Path(__file__).parents[2]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["cami2v weights", *arguments])
    try:
        weights.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def shell(hub: Hub, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launch.weights", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip


@functools.cache
def released(experiment: str) -> dict[str, Tensor]:
    """Return a full-size model's weights under released names; every tensor is one number, repeated."""
    model = build_skeleton(compose_config("train", [f"experiment={experiment}"]))
    parameters = dict(model.named_parameters())
    names = released_names(parameters)
    number = torch.zeros((), dtype=torch.float16)
    held = {names[ours]: number.expand(to_released_shape(ours, value).shape) for ours, value in parameters.items()}
    tables = ["betas", "scale_arr"] if experiment.endswith("512") else ["betas"]
    # The release has one block more, which is never run.
    spare = "cond_stage_model.model.transformer.resblocks.23.ln_1.weight"
    return held | {table: number.expand(1000) for table in tables} | {spare: number.expand(1024)}


def camera_only(experiment: str) -> dict[str, Tensor]:
    model = build_skeleton(compose_config("train", [f"experiment={experiment}"]))
    names = released_names([name for name, _ in model.named_parameters()])
    camera = {released for ours, released in names.items() if CAMERA.fullmatch(ours)}
    return {name: value for name, value in released(experiment).items() if name in camera}


def saved(path: Path, held: dict[str, Tensor]) -> Path:
    torch.save({"state_dict": held}, path)
    return path


def test_the_catalogue_names_experiments_that_exist() -> None:
    experiments = {path.stem for path in (conf_folder() / "experiment").glob("*.yaml")}
    names = [file.name for file in RELEASED_FILES]
    assert len(set(names)) == len(names)
    for file in RELEASED_FILES:
        assert set(file.experiments) <= experiments
        assert file.base is None or file.base in names
        assert file.sha256 is None or len(file.sha256) == 64
        assert file.evidence
    published = experiments - {"demo", "cami2v_512_masked"}
    assert published == {name for file in RELEASED_FILES for name in file.experiments}


def test_names_are_found_or_explained() -> None:
    assert find_released("cami2v_256").file == "256_cami2v.pt"
    assert released_with_hash(find_released("motionctrl_256").sha256 or "") is find_released("motionctrl_256")
    with pytest.raises(ValueError, match="cami2v_512: means 2 files; name one: cami2v_512_50k, cami2v_512_100k"):
        find_released("cami2v_512")
    with pytest.raises(ValueError, match="camiv_256: no released file of this name; did you mean 'cami2v_256'"):
        find_released("camiv_256")


def test_list_says_what_is_known_and_what_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "list") == 0
    printed = capsys.readouterr().out
    assert "cami2v_256  (full, 5.74 GB)\n  MuteApo/CamI2V 256_cami2v.pt\n  licence: MIT\n" in printed
    assert "realcam_i2v_256  (delta, size not known here; asked from the hub at fetch)" in printed


def of_role(*roles: str) -> list[ReleasedFile]:
    return [file for file in RELEASED_FILES if file.role in roles]


@pytest.mark.parametrize("file", of_role("judge"), ids=lambda file: file.name)
def test_the_measures_it_prints_compose(file: ReleasedFile) -> None:
    (line,) = weights.uses(file, Path("w/a file.pt"))
    program, verb, *overrides = shlex.split(line.partition(": ")[2])
    assert (program, verb) == ("cami2v", "evaluate")
    measures = compose_config(verb, overrides).evaluation.measures
    assert [node.weights for node in measures.values() if node and "weights" in node] == ["w/a file.pt"]


@pytest.mark.parametrize("file", of_role("full", "base", "delta", "depth"), ids=lambda file: file.name)
def test_the_commands_it_prints_compose(file: ReleasedFile) -> None:
    for line in weights.commands(file.role, file.experiments, Path("w/a file.pt"), file.base or "dynamicrafter_256"):
        program, verb, *overrides = shlex.split(line.partition(": ")[2])
        assert program == "cami2v"
        config = compose_config(verb, [item for item in overrides if item != "data=SHARDS"])
        if verb == "train":
            assert config.init_from == "w/a file.pt"
            continue
        assert config.from_experiment == file.experiments[0]
        checkpoint = config.checkpoint if isinstance(config.checkpoint, str) else config.checkpoint[-1]
        assert checkpoint == "w/a file.pt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "cami2v weights: the following arguments are required: list|fetch|check; see cami2v weights --help"),
        (["fetch"], "cami2v weights fetch: the following arguments are required: NAME"),
        (["list", "--remot"], None),
        (["fetch", "nothing"], "nothing: no released file of this name"),
        (["fetch", "cami2v_256", "motionctrl_256", "--file", "a"], "--file a: goes with one NAME, got 2"),
        (["check", "nowhere.pt"], "nowhere.pt: there is no such file"),
    ],
)
def test_what_a_user_got_wrong_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str | None
) -> None:
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message or ''}")
    assert error.count("\n") == 1


def test_fetch_downloads_verifies_and_says_what_next(tmp_path: Path) -> None:
    with serving(Hub(files={"256_cami2v.pt": b"weights" * 1000, "realcam.safetensors": b"other" * 100})) as hub:
        first = shell(hub, "fetch", "cami2v_256", cwd=tmp_path)
        assert first.returncode == 0, first.stderr
        assert (tmp_path / "weights/MuteApo/CamI2V/256_cami2v.pt").read_bytes() == b"weights" * 1000
        assert "licence: hub tag mit; here: MIT (" in first.stdout
        assert "the hub's file is another one than was known here" in first.stdout
        target = "weights/MuteApo/CamI2V/256_cami2v.pt"
        assert f"cami2v sample experiment=cami2v_256 checkpoint={target} image=" in first.stdout
        nameless = shell(hub, "fetch", "realcam_i2v_256", cwd=tmp_path)
        assert nameless.returncode == 2
        assert nameless.stderr == (
            "error: realcam_i2v_256: its file name is not known here; MuteApo/CamI2V has beside the known ones: "
            "realcam.safetensors; name one with --file\n"
        )
        named = shell(hub, "fetch", "realcam_i2v_256", "--file", "realcam.safetensors", "--to", "w", cwd=tmp_path)
        assert named.returncode == 0, named.stderr
        assert "checkpoint=w/Doubiiu/DynamiCrafter/model.ckpt,w/MuteApo/CamI2V/realcam.safetensors" in named.stdout
        hub.files = {}
        gone = shell(hub, "fetch", "cami2v_256", "--to", "elsewhere", cwd=tmp_path)
        assert gone.stderr.startswith("error: cami2v_256: MuteApo/CamI2V has no 256_cami2v.pt (it has: nothing)")
        assert not (tmp_path / "elsewhere").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "role", "lines"),
    [
        ("dynamicrafter_512", "base", ["train: cami2v train experiment=cami2v_512 init_from="]),
        ("motionctrl_256", "full", ["sample: cami2v sample experiment=motionctrl_256 checkpoint="]),
        (
            "cami2v_512",
            "full",
            ["its names fit cami2v_512 and realcam_i2v_512 alike", "sample: cami2v sample experiment=cami2v_512"],
        ),
    ],
)
def test_check_recognises_whole_models(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    experiment: str,
    role: str,
    lines: list[str],
) -> None:
    file = saved(tmp_path / "file.pt", released(experiment))
    assert run(monkeypatch, "check", str(file)) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{file}: {role}, ")
    assert all(line in printed for line in lines)
    assert f"checkpoint={file}" in shlex.split(printed.partition("sample: ")[2].splitlines()[0])


@pytest.mark.slow
def test_check_recognises_deltas_and_what_they_lack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    delta = camera_only("cami2v_256")
    assert run(monkeypatch, "check", str(saved(tmp_path / "delta.pt", delta))) == 0
    printed = capsys.readouterr().out
    assert ": delta, " in printed
    assert "its names fit realcam_i2v_256 and realcam_i2v_512 and cami2v_256 and cami2v_512 alike" in printed
    assert f"experiment=realcam_i2v_256 checkpoint=weights/Doubiiu/DynamiCrafter/model.ckpt,{tmp_path}" in printed
    lost = sorted(delta)[0]
    assert run(monkeypatch, "check", str(saved(tmp_path / "part.pt", {k: delta[k] for k in delta if k != lost}))) == 2
    assert f"incomplete: 1 of 270 trained weights are missing (first: {lost})" in capsys.readouterr().out


@pytest.mark.slow
def test_check_refuses_what_is_nearly_a_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    held = dict(released("motionctrl_256"))
    lost = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    del held[lost]
    assert run(monkeypatch, "check", str(saved(tmp_path / "lost.pt", held))) == 2
    assert f"missing {lost}" in capsys.readouterr().out
    assert run(monkeypatch, "check", str(saved(tmp_path / "other.pt", {"a.weight": torch.zeros(2)}))) == 2
    error = capsys.readouterr().err
    assert "none of its 1 tensors (first: a.weight) belongs to a model known here" in error
