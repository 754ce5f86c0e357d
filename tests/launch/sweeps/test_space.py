"""Search spaces, and how their values are written on a command line."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from launch.compose import compose_config
from launch.sweeps.space import grid, overrides, probes, read_space


def test_keys_with_dots_and_nested_ones_are_the_same():
    space = read_space({"optimizer.epsilon": [1e-8], "optimizer": {"learning_rate": {"low": 1e-5, "high": 1e-3}}})
    assert space == {
        "optimizer.epsilon": CategoricalDistribution([1e-8]),
        "optimizer.learning_rate": FloatDistribution(1e-5, 1e-3),
    }
    assert read_space({"seed": {"low": 1, "high": 9, "step": 4}}) == {"seed": IntDistribution(1, 9, step=4)}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({}, "sweep.space: empty"),
        ({"name": ["a"]}, "sweep.space.name: is set by the sweep"),
        ({"seed": 3}, "sweep.space.seed: got 3, expected a list"),
        ({"seed": []}, "expected a list"),
        ({"seed": [1, 1]}, "listed twice"),
        ({"seed": [{"a": 1}]}, r"sweep.space.seed\[0\]: got {'a': 1}"),
        ({"optimizer": {"seed": {"low": 1}}}, "sweep.space.optimizer.seed.high: required"),
        ({"seed": {"low": 1, "high": 2, "logg": True}}, "sweep.space.seed.logg: no such key; did you mean 'log'"),
        ({"seed": {"low": 1, "high": 2, "log": 1}}, "log: got 1, expected true or false"),
        ({"seed": {"low": "1", "high": 2}}, "low: got '1', expected a number"),
        ({"seed": {"low": 3, "high": 2}}, "sweep.space.seed: got .* which is no range"),
    ],
)
def test_what_is_no_space_is_refused_with_its_key(node, message):
    with pytest.raises(ValueError, match=message):
        read_space(node)


def test_a_grid_needs_values():
    space = read_space({"a": {"low": 0.1, "high": 0.3, "step": 0.1}, "b": {"low": 1, "high": 2}, "c": [None, "x"]})
    combinations = grid(space)
    assert len(combinations) == 12
    assert [row["a"] for row in combinations[::4]] == pytest.approx([0.1, 0.2, 0.3])
    assert combinations[1] == {"a": 0.1, "b": 1, "c": "x"}
    with pytest.raises(ValueError, match="sweep.space.a: a grid needs values"):
        grid(read_space({"a": {"low": 0.1, "high": 0.3}}))


def test_values_arrive_as_they_were_written():
    space = read_space(
        {
            "data.resolution": [[64, 64], [128, 256]], "trainer.gradient_clip_norm": [None, 0.5],
            "trainer.background_checkpoints": [False], "camera": ["cameractrl"], "init_from": ["a b, (c).ckpt"],
            "optimizer.learning_rate": {"low": 1e-7, "high": 1e-3, "log": True},
        }
    )  # fmt: skip
    config = compose_config("train", overrides(next(iter(probes(space)))))
    assert list(config.data.resolution) == [64, 64]
    assert config.trainer.gradient_clip_norm is None
    assert config.trainer.background_checkpoints is False
    assert config.optimizer.learning_rate == 1e-7
    assert config.camera._target_.endswith("CameraCtrl")
    assert config.init_from == "a b, (c).ckpt"


def test_every_choice_and_both_ends_are_probed():
    seen = list(probes(read_space({"a": [1, 2, 3], "b": {"low": 0.0, "high": 1.0}})))
    assert {row["a"] for row in seen} == {1, 2, 3}
    assert {row["b"] for row in seen} == {0.0, 1.0}
