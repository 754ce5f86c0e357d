"""`cami2v data scale` as a user types it, with a depth network of random weights: its numbers mean nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from cami2v.checkpoints.fingerprint import fingerprint
from cami2v.checkpoints.released_names import released_names
from cami2v.encoders.base import DepthEstimator
from launch.compose import compose_config, instantiate_part
from launch.data import main
from launch.depth_network import load_depth_weights
from launch.pack import main as pack
from launch.training_plan import prepare
from tests.data_pipeline.metric_scale.metric_worlds import FRAMES, world_without_scales
from tests.data_pipeline.raw_folders import clips_folder

TINY = ["depth=tiny", "depth_weights=random", "device=cpu", "scale.depth_short_side=56", "scale.processes=1"]


def cami2v_data_scale(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cami2v data", "scale", *overrides])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_from_a_network_to_training_in_metres(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world_without_scales(tmp_path)
    source, shards = tmp_path / "raw", tmp_path / "set"
    # A random network takes every picture for a wall some ten metres away: the ratios scatter as the depths do.
    anyhow = ["scale.max_spread=10", "scale.min_points=20", "scale.depth_frames=1"]
    assert cami2v_data_scale(monkeypatch, f"source={source}", *TINY, *anyhow) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("6 clips: 6 scaled, 0 have a scale already, 0 without\n")
    assert "the network is random: these numbers mean nothing" in printed
    assert printed.endswith(f"cami2v pack source={source} pack.scale_policy=metric\n")
    network = json.loads((source / "depth_scale.json").read_text())["procedure"]["depth"]
    assert (network["kind"], network["weights"], network["config"]["max_depth_metres"]) == ("network", "random", 20.0)
    assert network["parameters"] == fingerprint(tiny(), ())
    arguments = ["pack.scale_policy=metric", f"pack.min_frames={FRAMES}", "pack.min_shards=1", "pack.processes=1"]
    monkeypatch.setattr(sys, "argv", ["cami2v pack", f"source={source}", f"output={shards}", *arguments])
    pack()
    assert json.loads((shards / "manifest.json").read_text())["metric_scale"]["procedure"]["depth"] == network
    given = [f"data={shards}", f"data.frames={FRAMES}", "data.num_workers=0", "trainer.validate_every_steps=0"]
    config = compose_config("train", ["camera=realcam_i2v", *given, f"paths.runs={tmp_path}/runs"])
    assert prepare(config).loader.settings.scale_policy == "metric"
    # Null in the configuration; what the run was trained with is what its folder and its checkpoints record.
    assert config.data.scale_policy == "metric"


def tiny(*overrides: str) -> DepthEstimator:
    network: DepthEstimator = instantiate_part(compose_config("data_scale", ["depth=tiny", *overrides]).depth, "depth")
    return network


def test_released_weights_fill_the_network_or_are_refused(tmp_path: Path) -> None:
    stored, network = tiny("depth.seed=1"), tiny()
    assert fingerprint(stored, ()) != fingerprint(network, ())
    names = released_names([f"depth.{name}" for name, _ in stored.named_parameters()])
    weights = {
        names[f"depth.{name}"].removeprefix("depth_predictor."): p.detach() for name, p in stored.named_parameters()
    }
    torch.save(weights, tmp_path / "depth.pth")
    assert load_depth_weights(tmp_path / "depth.pth", network) == ("depth.pth", None)
    assert fingerprint(stored, ()) == fingerprint(network, ())
    lost = next(iter(weights))
    torch.save({name: value for name, value in weights.items() if name != lost}, tmp_path / "part.pth")
    before = fingerprint(network, ())
    with pytest.raises(ValueError, match=r"depth_weights=.*part.pth: has no depth\.\S+; give the file of the network"):
        load_depth_weights(tmp_path / "part.pth", network)
    with pytest.raises(ValueError, match=r"depth_weights=.*depth.pth: has another shape of depth\.\S+ and \d+ more"):
        load_depth_weights(tmp_path / "depth.pth", tiny("depth.width=48"))
    assert fingerprint(network, ()) == before


def test_nothing_scaled_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = clips_folder(tmp_path / "raw", clips=2)
    assert cami2v_data_scale(monkeypatch, f"source={raw}", *TINY) == 1
    assert "  too_few_matches: 2 (clip0, clip1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source=nowhere"], "source=nowhere: no such folder"),
        (["source=."], "depth_weights: not set, and a network without weights measures nothing"),
        (["source=.", "depth=none"], "depth=none: give a depth network"),
        (["source=.", "depth_maps=nowhere"], "depth_maps=nowhere: no such folder"),
        (["source=.", "output=scales.json", *TINY], "output=scales.json: must end in depth_scale.json"),
        (["source=.", "scale.max_spread=0", *TINY], "scale.max_spread=0.0: must be above 0"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(
    overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cami2v_data_scale(monkeypatch, *overrides) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
