from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cami2v.training.callbacks.base import Callback
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.callbacks.validate import Validate
from cami2v.training.ema import EmaSettings
from tests.cami2v.training.toys import LOGGING, forget_engine, toy_clip, train

pytestmark = pytest.mark.usefixtures("one_process")


def settings(decay: float | None, *, warmup: bool = True, in_validation: bool = False) -> EmaSettings:
    return EmaSettings(decay=decay, warmup=warmup, in_validation=in_validation)


class Follow(Callback):
    """Average by the formula, in double precision."""

    def __init__(self) -> None:
        self.average: dict[str, torch.Tensor] = {}

    def on_fit_start(self, run) -> None:
        self.average = {name: p.detach().double().clone() for name, p in run.engine.trainable.items()}

    def on_step_end(self, run, report) -> None:
        decay = min(0.9, (1 + report.step) / (10 + report.step))
        for name, value in self.average.items():
            value.mul_(decay).add_((1 - decay) * run.engine.trainable[name].detach())


def test_the_average_in_a_checkpoint_follows_the_formula(tmp_path: Path) -> None:
    follow = Follow()
    train(tmp_path, "single", ema_decay=0.9, callbacks=(follow,))
    saved = load_file(tmp_path / "checkpoints/step-00000006/ema.safetensors")
    trained = load_file(tmp_path / "checkpoints/step-00000006/trainable.safetensors")
    assert saved.keys() == trained.keys()
    for name, value in saved.items():
        torch.testing.assert_close(value.double(), follow.average[name], rtol=1e-6, atol=1e-7)
        assert not torch.equal(value, trained[name])


@pytest.mark.parametrize("kind", ["single", "zero2"])
def test_validation_sees_the_average_and_gives_the_weights_back(tmp_path: Path, kind: str) -> None:
    log = MetricsLog(every_steps=1, settings=LOGGING, config={})
    seen: dict[str, torch.Tensor] = {}

    class Look(Validate):
        def _validate(self, run) -> None:
            seen.update({name: p.detach().clone() for name, p in run.engine.trainable.items()})

    look = Look(clips=[toy_clip(100)], sampler="any", every_steps=6, log=log, use_average=True)
    train(tmp_path / "with", kind, precision="bf16", ema_decay=0.9, max_steps=6, callbacks=(look,))
    for name, value in load_file(tmp_path / "with/checkpoints/step-00000006/ema.safetensors").items():
        assert torch.equal(seen[name], value.to(seen[name].dtype)), name
    forget_engine()
    look.every_steps = 2
    train(tmp_path / "often", kind, precision="bf16", ema_decay=0.9, max_steps=6, callbacks=(look,))
    for file in ("trainable", "ema", "optimizer"):
        once, often = (
            load_file(tmp_path / run / "checkpoints/step-00000006" / f"{file}.safetensors") for run in ("with", "often")
        )
        assert [name for name, value in once.items() if not torch.equal(value, often[name])] == []


def test_a_run_that_gets_an_average_later_starts_it_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, "single", max_steps=3)
    forget_engine()
    train(tmp_path, "single", max_steps=4, ema_decay=0.9, resume="auto")
    assert "holds no average: it starts from the weights of this step" in caplog.text
    before = load_file(tmp_path / "checkpoints/step-00000003/trainable.safetensors")["out.weight"]
    after = load_file(tmp_path / "checkpoints/step-00000004/trainable.safetensors")["out.weight"]
    average = load_file(tmp_path / "checkpoints/step-00000004/ema.safetensors")["out.weight"]
    torch.testing.assert_close(average, before.lerp(after, 1 - 5 / 14))


def test_the_decay_warms_up() -> None:
    assert [settings(0.999).decay_at(step) for step in (1, 90, 100_000)] == pytest.approx([2 / 11, 0.91, 0.999])
    assert settings(0.999, warmup=False).decay_at(1) == 0.999


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_a_decay_that_averages_nothing_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"ema.decay: got {decay}"):
        settings(decay)


def test_validating_an_average_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="ema.in_validation: got true, but ema.decay is null"):
        settings(None, in_validation=True)
