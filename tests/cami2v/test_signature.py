"""Arguments from YAML against signatures: what is converted, and the one line for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cami2v.signature import build, build_settings, check
from tests.launch.parts import Bounds, Encoder, Policy, TrainerSettings

HERE = "tests.launch.parts"


def camera(**arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.Camera", "widths": [1, 2], **arguments}


@pytest.mark.parametrize(
    ("name", "written", "built"),
    [
        ("widths", [], ()),
        ("scale", 2, 2.0),
        ("size", [256, 384], (256, 384)),
        ("size", None, None),
        ("insertion", "temporal_attention", "temporal_attention"),
        ("policy", "metric", Policy.METRIC),
        ("stride", 4, 4),
        ("stride", [1, 4], [1, 4]),
        ("bounds", {"low": 0}, Bounds(low=0.0, high=1.0)),
        ("levels", {"a": 1}, {"a": 1.0}),
        ("folder", "runs/x", Path("runs/x")),
    ],
)
def test_values_arrive_as_the_signature_wants_them(name, written, built):
    value = getattr(build(camera(**{name: written}), "camera", {}), name)
    assert value == built
    assert type(value) is type(built)


def test_inner_parts_are_built_first():
    part = build(camera(encoder={"_target_": f"{HERE}.Encoder", "channels": 3}), "camera", {})
    assert isinstance(part.encoder, Encoder)
    assert part.encoder.channels == 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"widths": 3}, "camera.widths: got 3 (int), expected tuple[int, ...]"),
        ({"widths": [1, "b"]}, "camera.widths[1]: got 'b' (str), expected int"),
        ({"downsample": True}, "camera.downsample: got True (bool), expected int"),
        ({"downsample": 8.5}, "camera.downsample: got 8.5 (float), expected int"),
        ({"downsample": None}, "camera.downsample: got None (NoneType), expected int"),
        ({"scale": "two"}, "camera.scale: got 'two' (str), expected float"),
        ({"size": [1, 2, 3]}, "camera.size: got [1, 2, 3] (3 values), expected 2: tuple[int, int]"),
        ({"stride": [1, "x"]}, "camera.stride: got [1, 'x'] (list), expected int or Sequence[int]"),
        (
            {"bounds": {"low": 0, "hihg": 1}},
            "camera.bounds.hihg: no such key for tests.launch.parts.Bounds; did you mean",
        ),
        (
            {"bounds": {}},
            "camera.bounds.low: required by tests.launch.parts.Bounds and not set, write camera.bounds.low=",
        ),
        ({"levels": {"a": "x"}}, "camera.levels.a: got 'x' (str), expected float"),
        (
            {"widht": 3},
            "camera.widht: no such key for tests.launch.parts.Camera; did you mean 'widths'? (allowed: widths, ",
        ),
    ],
)
def test_a_wrong_value_is_named_by_its_full_key(arguments, line):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole line is compared below
        check(camera(**arguments), "camera")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"insertion": "main_brnch"}, "one of 'main_branch', 'temporal_attention'; did you mean 'main_branch'?"),
        ({"policy": "metrik"}, "one of 'relative', 'metric'; did you mean 'metric'?"),
    ],
)
def test_choices_are_listed(arguments, line):
    with pytest.raises(ValueError, match=r"camera\.(insertion|policy): got ") as caught:
        check(camera(**arguments), "camera")
    assert str(caught.value).endswith(line)


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (f"{HERE}.Camra", "has no class 'Camra'; did you mean 'Camera'?"),
        ("tests.launch.prts.Camera", "there is no module 'tests.launch.prts'"),
        ("os.system", "os has no class 'system'"),
        ("Camera", "expected the dotted path of a class"),
        (None, "expected the dotted path of a class"),
    ],
)
def test_a_wrong_target_is_refused(target, line):
    with pytest.raises(ValueError, match=r"^camera\._target_: got ") as caught:
        check({"_target_": target}, "camera")
    assert line in str(caught.value)


def test_a_target_whose_package_is_missing_names_the_package(tmp_path, monkeypatch):
    (tmp_path / "needs_absent_package.py").write_text("import absent_package\nclass Part: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="needs the package 'absent_package', which is not installed"):
        check({"_target_": "needs_absent_package.Part"}, "camera")


def test_an_inner_part_of_the_wrong_kind_is_refused():
    with pytest.raises(ValueError, match=r"camera\.encoder\._target_: got tests\.launch\.parts\.Camera, expected "):
        check(camera(encoder=camera()), "camera")
    with pytest.raises(ValueError, match=r"camera\.encoder\.channels: required by "):
        check(camera(encoder={"_target_": f"{HERE}.Encoder"}), "camera")


def test_what_the_program_adds_is_not_asked_of_the_config():
    node = {"_target_": f"{HERE}.NeedsRuntime", "width": 4}
    assert build(node, "part", {"make": lambda width: width * 10, "rank": 2}).product == 42
    check(node, "part", {"rank"})  # a function cannot stand in YAML, so `make` must come from the program
    check(node, "part", None)
    with pytest.raises(ValueError, match=r"part\.rank: required by"):
        check(node, "part")
    with pytest.raises(ValueError, match=r"part\.rank: is set by the program"):
        check({**node, "rank": 1}, "part", {"rank"})


def test_settings_have_defaults_types_and_ranges():
    assert build_settings(TrainerSettings, {"max_steps": 5}, "trainer") == TrainerSettings(max_steps=5)
    assert build_settings(TrainerSettings, {"max_steps": 5, "trainable": ["a.*"]}, "trainer").trainable == ["a.*"]
    with pytest.raises(ValueError, match=r"^trainer\.max_stps: no such key .*did you mean 'max_steps'"):
        build_settings(TrainerSettings, {"max_stps": 5}, "trainer")
    with pytest.raises(ValueError, match=r"^trainer\.max_steps: required by"):
        build_settings(TrainerSettings, {}, "trainer")
    with pytest.raises(ValueError, match=r"^trainer\.trainable: got 'al' .* or list\[str\]; did you mean 'all'\?$"):
        build_settings(TrainerSettings, {"max_steps": 5, "trainable": "al"}, "trainer")
    with pytest.raises(ValueError, match="expected at least 1"):
        build_settings(TrainerSettings, {"max_steps": 0}, "trainer")
