"""What a run tells beside its loss, in one process and in two under every engine; and that telling changes nothing."""

import json
import math
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from cami2v.training.callbacks.base import Callback
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.gradient_norms import module_of
from tests.cami2v.training.test_engines import case, tensors
from tests.cami2v.training.test_engines import train as launch
from tests.cami2v.training.toys import LOGGING, train

STEPS = 4
# The order matters: ZeRO-3 last.
CASES = [(kind, precision) for kind in ("ddp", "zero1", "zero2", "zero3") for precision in ("fp32", "bf16")]


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def columns(row: dict, prefix: str) -> dict[str, float]:
    return {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}


class Watch(Callback):
    """Recomputes what the meters should say from the steps themselves."""

    def __init__(self) -> None:
        self.buckets: list[dict[str, float]] = []

    def on_step_end(self, run, report) -> None:
        found = defaultdict(list)
        for _, output in report.work:
            for timestep, loss in zip(output.timesteps.tolist(), output.loss_per_sample.tolist(), strict=True):
                found["0-3" if timestep < 4 else "4-6" if timestep < 7 else "7-9"].append(loss)
        self.buckets.append({name: math.fsum(losses) / len(losses) for name, losses in found.items()})
        assert all(weight.grad is None for weight in run.engine.trainable.values())


@pytest.mark.usefixtures("one_process")
def test_rows_hold_the_loss_by_timestep_the_gradient_by_module_and_the_rate_of_operations(tmp_path: Path) -> None:
    watch = Watch()
    train(tmp_path, "single", max_steps=STEPS, measured=True, callbacks=(watch,))
    for row, expected in zip(rows(tmp_path), watch.buckets, strict=True):
        assert columns(row, "loss_by_timestep/") == pytest.approx(expected, rel=1e-6)
        norms = columns(row, "gradient_norm/")
        assert set(norms) == ({"hidden", "out"} if row["step"] % 2 == 0 else set())
        if norms:
            assert math.hypot(*norms.values()) == pytest.approx(row["gradient_norm"], rel=1e-6)
            assert min(norms.values()) > 0
        assert row["mfu"] == pytest.approx(row["tflops_per_second"])
        assert row["tflops_per_second"] == pytest.approx(2e-6 / row["seconds_per_step"])


@pytest.mark.usefixtures("one_process")
def test_metrics_keep_no_batches_between_rows(tmp_path: Path) -> None:
    log = MetricsLog(every_steps=100, settings=LOGGING, config={})
    kept = []

    class Look(Callback):
        def on_step_end(self, run, report) -> None:
            assert report.work
            kept.append([each.work for each in log._reports])

    train(tmp_path, "single", max_steps=3, callbacks=(log, Look()))
    assert kept == [[()], [(), ()], []]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    launch(
        [
            case(folder / name, kind, precision, max_steps=STEPS, checkpoint_every_steps=STEPS, measured=measured)
            for kind, precision in CASES
            for name, measured in (("on", True), ("off", False))
        ],
    )
    return folder


@pytest.mark.parametrize(("kind", "precision"), CASES)
def test_measuring_changes_no_bit(runs: Path, kind: str, precision: str) -> None:
    on, off = (runs / name / f"{kind}-{precision}" for name in ("on", "off"))
    for key in ("loss", "gradient_norm"):
        assert [row[key] for row in rows(on)] == [row[key] for row in rows(off)]
    left, right = tensors(on, STEPS), tensors(off, STEPS)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(("kind", "precision"), CASES)
def test_every_engine_measures_the_same(runs: Path, kind: str, precision: str) -> None:
    measured, reference = (rows(runs / "on" / name) for name in (f"{kind}-{precision}", f"ddp-{precision}"))
    tolerance = 1e-5 if precision == "fp32" else 0.02
    for row, expected in zip(measured, reference, strict=True):
        for prefix in ("gradient_norm/", "loss_by_timestep/"):
            assert columns(row, prefix) == pytest.approx(columns(expected, prefix), rel=tolerance)
    assert all(len(columns(row, "gradient_norm/")) == 2 for row in measured[1::2])


def test_columns_name_the_part_a_weight_belongs_to() -> None:
    names = {
        "camera.pose_encoder.layers.0.weight": "camera",
        "backbone.input_blocks.1.1.transformer_blocks.0.camera.qkv.weight": "camera",
        "backbone.input_blocks.1.0.in_layers.0.weight": "backbone.input_blocks",
        "image_projector.proj.weight": "image_projector",
    }
    assert {name: module_of(name) for name in names} == names
