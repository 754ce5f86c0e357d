"""What `cluster=slurm` writes and refuses; tests/launch/test_slurm_jobs.py runs it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cami2v.training.preemption import REQUEUE_EXIT_CODE
from launch.abilities import ABILITIES
from launch.compose import compose_config, conf_folder, instantiate_part, plain
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "launch" / "examples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A script, taken apart."""

    text: str
    options: dict[str, str]
    """Of #SBATCH lines."""
    srun: list[str]
    """The one srun line, as a shell splits it."""

    @property
    def arguments(self) -> list[str]:
        """What follows `python -m launch.<verb>`."""
        return self.srun[self.srun.index("-m") + 2 : -1]


def write(verb: str, *overrides: str) -> Written:
    """Write the script of a command, as `launch.compose.entry` does."""
    config = compose_config(verb, [*overrides, "cluster=slurm", "cluster.submit=false"])
    instantiate_part(config.cluster, "cluster").start(
        verb, config, [*overrides, "cluster=slurm", "cluster.submit=false"]
    )
    (path,) = Path(config.paths.runs).rglob("*.sbatch")
    text = path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)
    # Slurm reads options up to the first line that is none.
    head = text.split("\n\n")[1].splitlines()
    assert all(line.startswith("#SBATCH --") for line in head)
    options = [shlex.split(line.removeprefix("#SBATCH --"))[0].partition("=") for line in head]
    joined = text.replace("\\\n", " ")
    (srun,) = (shlex.split(line) for line in joined.splitlines() if line.startswith("srun "))
    return Written(text=text, options={name: value for name, _, value in options}, srun=srun)


def without_cluster(verb: str, arguments: list[str]) -> dict[str, object]:
    return {key: value for key, value in plain(compose_config(verb, arguments)).items() if key != "cluster"}


def test_a_script_for_gpus_on_several_nodes(tmp_path: Path) -> None:
    given = ["experiment=cami2v_256", "name=big", f"paths.runs={tmp_path}/a b", "engine=zero2", "data.shards=/shards"]
    cluster = [
        "cluster.nodes=4", "cluster.gpus_per_node=a100:8", "cluster.cpus_per_task=12", "cluster.time=1-00:00:00",
        "cluster.partition=gpu", "cluster.account=lab", "cluster.qos=long", "cluster.constraint='a100&ib'",
        "cluster.memory=0", 'cluster.sbatch=["--exclusive","#SBATCH --mail-type=END"]', "cluster.signal_seconds=300",
        'cluster.setup=["module load cuda/12.4","source \'/my venv/bin/activate\'"]', "cluster.check=false",
        "+cluster.environment.NCCL_TIMEOUT='a b'", "cluster.environment.NCCL_SOCKET_IFNAME=ib0",
    ]  # fmt: skip
    job = write("train", *given, *cluster)
    assert {
        "job-name": "big", "nodes": "4", "ntasks-per-node": "8", "gpus-per-node": "a100:8", "cpus-per-task": "12",
        "time": "1-00:00:00", "partition": "gpu", "account": "lab", "qos": "long", "constraint": "a100&ib",
        "mem": "0", "requeue": "", "open-mode": "append", "signal": "B:USR1@300", "exclusive": "", "mail-type": "END",
        "chdir": str(Path.cwd()), "output": f"{tmp_path}/a b/big/slurm/train-%j.log",
    } == job.options  # fmt: skip
    # Every process is one task of one srun, which knows its rank and where to meet.
    assert "--cpus-per-task=12" in job.srun
    assert "--kill-on-bad-exit=1" in job.srun
    rank = "RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=8"
    assert f"export {rank}\n" in job.text
    assert all(f"export {name}=$(" in job.text for name in ("MASTER_ADDR", "MASTER_PORT"))
    assert "export NCCL_SOCKET_IFNAME=ib0\n" in job.text
    assert "export NCCL_TIMEOUT='a b'\n" in job.text
    assert "NCCL_IB_HCA" not in job.text
    assert job.text.index("module load") < job.text.index("/my venv") < job.text.index("\nsrun ")
    # The command means what was typed, but continues and starts no second job.
    assert without_cluster("train", job.arguments) == without_cluster("train", [*given, "resume=auto"])
    assert plain(compose_config("train", job.arguments))["cluster"] == {"processes": 1}
    assert f"[ $code = {REQUEUE_EXIT_CODE} ]" in job.text


def test_a_named_run_is_continued_under_its_own_folder(tmp_path: Path) -> None:
    job = write("train", f"paths.runs={tmp_path}", f"resume={tmp_path}/old", "cluster.check=false")
    assert compose_config("train", job.arguments).resume == f"{tmp_path}/old"
    assert job.options["output"] == f"{tmp_path}/old/slurm/train-%j.log"
    assert "MASTER_ADDR" not in job.text, "one process meets nobody"


def test_a_verb_that_cannot_continue_is_not_put_back(tmp_path: Path) -> None:
    job = write("data_stats", f"paths.runs={tmp_path}")
    assert "scontrol requeue" not in job.text
    assert "signal" not in job.options
    assert job.srun[1:-1] == ["--kill-on-bad-exit=1", sys.executable, "-m", "launch.data_stats", *job.arguments]


def test_an_array_shares_the_work_of_pack(tmp_path: Path) -> None:
    job = write("pack", f"paths.runs={tmp_path}", "source=/clips", "cluster.array=16", "cluster.array_at_once=4")
    assert job.options["array"] == "0-15%4"
    assert job.options["output"] == f"{tmp_path}/slurm/pack/pack-%A_%a.log"
    assert compose_config("pack", job.arguments).pack.tasks == 16
    assert "kill -TERM $step" in job.text, "pack does not save when asked: it is ended, and continues"


def test_an_array_of_evaluate_has_ranks_in_its_tasks(tmp_path: Path) -> None:
    job = write("evaluate", f"paths.runs={tmp_path}", "cluster.array=8", "cluster.gpus_per_node=2")
    assert job.options["array"] == "0-7"
    assert job.options["ntasks-per-node"] == "2"
    assert compose_config("evaluate", job.arguments).evaluation.tasks == 8
    assert "export RANK=$SLURM_PROCID" in job.text


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("pyxis", ["--container-image=/images/a b.sqsh", "--container-mounts={here}:{here},/data", "bash"]),
        ("apptainer", ["apptainer", "exec", "--nv", "--bind", "/data", "/images/a b.sqsh", "bash", "python"]),
    ],
)
def test_containers_hold_the_whole_task(tmp_path: Path, program: str, words: list[str]) -> None:
    container = ["cluster.container.image='/images/a b.sqsh'", f"cluster.container.program={program}"]
    job = write(
        "train", f"paths.runs={tmp_path}", *container, 'cluster.container.mounts=["/data"]', "cluster.check=false"
    )  # fmt: skip
    found = [job.srun.index(word.format(here=Path.cwd())) for word in words]
    assert found == sorted(found)
    assert sys.executable not in job.srun, "a container has a python of its own"


@pytest.mark.parametrize(
    ("verb", "overrides", "message"),
    [
        ("train", ["cluster.nodes=0"], "cluster.nodes=0: must be at least 1"),
        ("train", ["cluster.time=30"], "cluster.time=30: Slurm's notation"),
        ("train", ["cluster.gpus_per_node=many"], "cluster.gpus_per_node=many: expected a number or <type>:<number>"),
        ("train", ["cluster.node=2"], "cluster.node"),
        ("train", ["cluster.setup=['a\nb']"], "line break"),
        (
            "train",
            ["cluster.array=3"],
            "cluster.array=3: train cannot be shared by the tasks of an array (evaluate, pack",
        ),
        ("train", ["engine=zero2", "cluster.nodes=3"], "trainer.global_batch_size: got 8, expected a multiple of 3"),
        ("train", ["cluster.nodes=2"], "engine.kind: got single, but the run has 2 processes"),
        ("train", ["engine=ddp", "cluster.nodes=2", "data.num_workers=9"], "4 shards for 18 readers"),
        ("pack", ["cluster.nodes=2"], "pack is one process on one node"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    tmp_path: Path, shards: Path, verb: str, overrides: list[str], message: str
) -> None:
    data = [f"data={shards}", "data.frames=4", "trainer.validate_every_steps=0"] if verb == "train" else []
    with pytest.raises(ValueError, match=re.escape(message)):
        write(verb, f"paths.runs={tmp_path}", *data, *overrides)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_the_script_and_leaves_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    config = compose_config(
        "train", ["cluster=slurm", "cluster.check=false", f"paths.runs={tmp_path}", "++dry_run=true"]
    )
    instantiate_part(config.cluster, "cluster").start("train", config, [])
    assert capsys.readouterr().out.startswith("#!/bin/bash\n")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    source = clips_folder(folder / "raw", splits=["train"] * 4 + ["test"] * 2)
    return pack_quietly(source, folder / "shards").folder


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "there is no sbatch on this machine's PATH; submit it on a login node: sbatch "),
        ("echo 'sbatch: error: invalid partition specified: gpx' >&2; exit 1", "sbatch: error: invalid partition"),
        ("env | grep -q ^SLURM_JOB_ID && exit 1; echo '42;cluster'", None),
    ],
)
def test_submitting_says_what_sbatch_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str | None,
    message: str | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path) if program is None else f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    if program is not None:
        (tmp_path / "sbatch").write_text(f"#!/bin/bash\n{program}\n")
        (tmp_path / "sbatch").chmod(0o755)
    config = compose_config("pack", ["cluster=slurm", f"paths.runs={tmp_path}"])
    cluster = instantiate_part(config.cluster, "cluster")
    if message is not None:
        with pytest.raises(ValueError, match=re.escape(message)):
            cluster.start("pack", config, [])
        return
    cluster.start("pack", config, [])
    script = tmp_path / "slurm" / "pack" / "pack.sbatch"
    assert capsys.readouterr().out == f"submitted job 42: {script}\nlog: {script.with_name('pack-42.log')}\n"


def test_every_command_takes_a_cluster() -> None:
    entries = {path.stem: yaml.safe_load(path.read_text())["defaults"] for path in conf_folder().glob("*.yaml")}
    assert set(ABILITIES) <= set(entries)
    for entry, defaults in entries.items():
        groups = {group for item in defaults if isinstance(item, dict) for group in item}
        assert "cluster" in groups or "train" in defaults, (
            f"conf/{entry}.yaml lacks `- cluster: null`, so that cluster=slurm is refused"
        )


@pytest.mark.slow
def test_the_torchrun_example_starts_every_process() -> None:
    environment = {**os.environ, "PROCESSES": "2", "OMP_NUM_THREADS": "1", "MASTER_PORT": "29731"}
    done = subprocess.run(
        [EXAMPLES / "torchrun.sh", "name=example", "--cfg", "job"], cwd=ROOT, env=environment, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(re.findall(r"^name: example$", done.stdout, re.MULTILINE)) == 2


def test_the_accelerate_example_finds_the_config_of_its_engine(tmp_path: Path) -> None:
    (tmp_path / "accelerate").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "accelerate").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ENGINE": "zero2", "NODE_RANK": "1"}
    done = subprocess.run(
        [EXAMPLES / "accelerate.sh", "name=a b"], env=environment, cwd=tmp_path, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    words = done.stdout.splitlines()
    assert Path(words[words.index("--config_file") + 1]).samefile(ROOT / "launch" / "accelerate" / "zero2.yaml")
    assert words[words.index("--machine_rank") + 1] == "1"
    assert words[-4:] == ["-m", "launch.train", "engine=zero2", "name=a b"]
