import os

import pytest

from cami2v.training import environment
from cami2v.training.environment import EngineKind

LAUNCHED = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO"}
ZERO2 = LAUNCHED | {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]})


def check(kind: str, *, precision: str = "fp32", accumulation_steps: int = 2, processes: int = 2) -> None:
    environment.check_environment(
        EngineKind(kind), precision, 0.5, accumulation_steps=accumulation_steps, processes=processes
    )


@pytest.mark.parametrize("kind", ["ddp", "zero1", "zero2", "zero3", "zero3_offload"])
def test_torchrun_agrees_with_every_engine(kind: str) -> None:
    os.environ.update(RANK="0", WORLD_SIZE="2")
    check(kind)


@pytest.mark.parametrize(("kind", "launched"), [("ddp", LAUNCHED), ("zero2", ZERO2), ("single", LAUNCHED)])
def test_accelerate_launch_of_the_same_engine_agrees(kind: str, launched: dict[str, str]) -> None:
    os.environ.update(launched)
    check(kind, processes=1 if kind == "single" else 2)


@pytest.mark.parametrize(
    ("kind", "variables", "message"),
    [
        ("ddp", ZERO2, "engine.kind: got ddp, but accelerate launch was configured for zero2"),
        ("zero3", ZERO2, "engine.kind: got zero3, but accelerate launch was configured for zero2"),
        ("zero2", LAUNCHED, "engine.kind: got zero2, but accelerate launch was configured for no DeepSpeed"),
        ("zero2", ZERO2 | {"ACCELERATE_MIXED_PRECISION": "bf16"}, "ACCELERATE_MIXED_PRECISION=bf16"),
        ("zero2", ZERO2 | {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4"),
        ("zero2", ZERO2 | {"ACCELERATE_GRADIENT_CLIPPING": "1.0"}, "trainer.gradient_clip_norm"),
        ("zero2", ZERO2 | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "x.json"}, "ACCELERATE_DEEPSPEED_CONFIG_FILE=x.json"),
        ("ddp", LAUNCHED | {"ACCELERATE_USE_FSDP": "true"}, "ACCELERATE_USE_FSDP"),
    ],
)
def test_a_launcher_that_wants_something_else_is_refused(kind: str, variables: dict[str, str], message: str) -> None:
    os.environ.update(variables)
    with pytest.raises(ValueError, match=message):
        check(kind)


def test_a_single_engine_refuses_two_processes() -> None:
    with pytest.raises(ValueError, match="got single, but the run has 2 processes"):
        check("single")


def test_claiming_leaves_nothing_that_overrules_the_config_and_gives_deepspeed_a_rendezvous() -> None:
    os.environ.update(ZERO2, ACCELERATE_CONFIG_DS_FIELDS="zero_stage", ACCELERATE_GRADIENT_ACCUMULATION_STEPS="1")
    environment.claim_environment(EngineKind.ZERO2)
    assert not [name for name in os.environ if name.startswith("ACCELERATE_")]
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["MASTER_ADDR"]) == ("0", "1", "127.0.0.1")
    assert int(os.environ["MASTER_PORT"]) > 0
