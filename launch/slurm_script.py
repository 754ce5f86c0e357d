"""The text of an sbatch script: options, surroundings, one srun, and what happens when Slurm wants the nodes back."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cami2v.training.preemption import REQUEUE_EXIT_CODE
from launch.abilities import Ability
from launch.errors import EXIT_CODE
from launch.slurm_settings import SlurmSettings

RENDEZVOUS = """\
# Where the processes meet: the first node, as Slurm reaches it, at a port of this job's own.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')
export MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))
"""

TASK = """\
# What every task runs. A signal that comes before the program listens does not end it. A preempted process ends well,
# or srun would kill those that are still saving: process 0 leaves a note, and this script asks for the requeue.
task='
trap "" USR1
trap : TERM
{variables}"$@"
code=$?
if [ "$SLURM_PROCID" = 0 ] && { [ $code = %(requeue)d ] || [ $code = %(mistake)d ]; }; then echo $code > "$note"; fi
[ $code = %(requeue)d ] && exit 0
exit $code'
"""

VARIABLES = """\
export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE={local}
"""

WAIT = """\
# A signal ends `wait`, not the step.
interrupted=yes
while [ -n "$interrupted" ]; do interrupted=; wait $step; code=$?; done
"""

EXIT_CODE_FILE = """\
# Whoever follows this job finds its exit code here, unless it comes back.
left={left}
rm -f "$left"
trap 'code=$?; [ -n "$requeued" ] || {{ echo $code > "$left.partial" && mv "$left.partial" "$left"; }}' EXIT
"""

NOTE = """\
# Preempted, if no other process crashed; a mistake in the command is one whatever became of the others.
said=$(cat "$note" 2>/dev/null)
rm -f "$note"
if [ "$said" = {requeue} ] && [ $code = 0 ]; then code={requeue}; fi
if [ "$said" = {mistake} ]; then code={mistake}; fi
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One command as a batch job."""

    verb: str
    ability: Ability
    name: str
    folder: Path
    """Of script, logs and notes; every node sees it."""
    arguments: Sequence[str]
    processes: int
    """Of the job, or of each task of an array."""
    nodes: int
    processes_per_node: int
    array: int | None
    followed: bool = False
    """Whether somebody waits for its exit code, which Slurm forgets after a few minutes."""

    @property
    def wrapped(self) -> bool:
        """Whether a shell around the program names its rank or looks at its exit code."""
        return self.ability.saves_when_asked or self.processes > 1

    @property
    def path(self) -> Path:
        """Where the script is kept."""
        return self.folder / f"{self.verb.replace('_', '-')}.sbatch"

    @property
    def log(self) -> str:
        """Path of the log in sbatch's notation."""
        number = "%j" if self.array is None else "%A_%a"
        return f"{str(self.path.with_suffix('')).replace('%', '%%')}-{number}.log"

    def log_of(self, number: str) -> str:
        """Path of the log of the job that Slurm gave a number."""
        return self.log.replace("%A", number).replace("%j", number).replace("%a", "<task>").replace("%%", "%")

    def exit_code_of(self, number: str) -> Path:
        """File that a followed job leaves once it has ended for good."""
        return self.folder / f"exit-code-{number}"


def script(job: Job, cluster: SlurmSettings) -> str:
    """Return the sbatch script of a job."""
    requeues = cluster.requeue and job.ability.continues
    shown = f"cami2v {job.verb.replace('_', ' ')}"
    parts = [
        f"#!/bin/bash\n# {shown}, written by cluster=slurm. Submit it again: sbatch {shlex.quote(str(job.path))}\n",
        "".join(f"#SBATCH {option}\n" for option in _options(job, cluster, requeues)),
        # As soon as there is a signal to miss.
        _traps(job, requeues),
        _exit_code_file(job),
        'echo "$(date +%FT%T) job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)), on $SLURM_JOB_NODELIST"\n',
        _surroundings(cluster),
        RENDEZVOUS if job.processes > 1 else "",
        _task(job) if job.wrapped else "",
        _srun(job, cluster),
        WAIT,
        NOTE.format(requeue=REQUEUE_EXIT_CODE, mistake=EXIT_CODE) if job.wrapped else "",
        _ending(cluster, requeues),
    ]
    return "\n".join(part for part in parts if part)


def _options(job: Job, cluster: SlurmSettings, requeues: bool) -> Iterator[str]:
    yield f"--job-name={_quoted(job.name)}"
    if job.array is not None:
        limit = f"%{cluster.array_at_once}" if cluster.array_at_once else ""
        yield f"--array=0-{job.array - 1}{limit}"
    yield f"--nodes={job.nodes}"
    yield f"--ntasks-per-node={job.processes_per_node}"
    for name, value in (
        ("gpus-per-node", cluster.gpus_per_node), ("cpus-per-task", cluster.cpus_per_task), ("mem", cluster.memory),
        ("time", cluster.time), ("partition", cluster.partition), ("account", cluster.account), ("qos", cluster.qos),
        ("constraint", cluster.constraint),
    ):  # fmt: skip
        if value is not None:
            yield f"--{name}={_quoted(str(value))}"
    yield f"--chdir={_quoted(str(Path.cwd()))}"
    yield f"--output={_quoted(job.log)}"
    yield "--open-mode=append"
    yield "--requeue" if cluster.requeue else "--no-requeue"
    if requeues:
        yield f"--signal=B:USR1@{cluster.signal_seconds}"
    yield from (line.removeprefix("#SBATCH").strip() for line in cluster.sbatch)


def _surroundings(cluster: SlurmSettings) -> str:
    lines = [
        f"export {name}={shlex.quote(str(value))}" for name, value in cluster.environment.items() if value is not None
    ]
    for line in cluster.setup:
        failed = shlex.quote(f"error: cluster.setup: this line failed: {line}")
        lines.append(f"{line} || {{ echo {failed} >&2; exit {EXIT_CODE}; }}")
    return "".join(f"{line}\n" for line in lines)


def _traps(job: Job, requeues: bool) -> str:
    if not requeues:
        return "# The log waits for the program's last words.\ntrap 'interrupted=yes' TERM\n"
    does = (
        "pass it on, and the program saves" if job.ability.saves_when_asked else "end the program, it continues later"
    )
    signal = "USR1" if job.ability.saves_when_asked else "TERM"
    return (
        f"# Slurm warns this shell alone: {does}.\n"
        f"trap 'interrupted=yes; warned=yes; [ -n \"$step\" ] && kill -{signal} $step' USR1\n"
        "# Whoever cancels or requeues the job tells the program as well; after a warning it is the time limit.\n"
        "trap 'interrupted=yes; [ -n \"$warned\" ] || ended=yes' TERM\n"
    )


def _exit_code_file(job: Job) -> str:
    if not job.followed:
        return ""
    return EXIT_CODE_FILE.format(left=f"{shlex.quote(str(job.folder))}/exit-code-$SLURM_JOB_ID")


def _task(job: Job) -> str:
    text = TASK % {"requeue": REQUEUE_EXIT_CODE, "mistake": EXIT_CODE}
    variables = VARIABLES.format(local=job.processes_per_node) if job.processes > 1 else ""
    note = shlex.quote(str(job.folder)) + "/.ended-$SLURM_JOB_ID"
    return f'export note={note}\nrm -f "$note"\n{text.replace("{variables}", variables)}'


def _srun(job: Job, cluster: SlurmSettings) -> str:
    box = cluster.container
    options = ["--kill-on-bad-exit=1", *cluster.srun]
    if cluster.cpus_per_task is not None:
        # Since Slurm 22.05 srun does not ask for what sbatch was given.
        options.append(f"--cpus-per-task={cluster.cpus_per_task}")
    mounts = [f"{Path.cwd()}:{Path.cwd()}", *box.mounts]
    inside: list[str] = []
    if box.image is not None and box.program == "pyxis":
        options += [
            f"--container-image={box.image}", f"--container-mounts={','.join(mounts)}",
            f"--container-workdir={Path.cwd()}",
        ]  # fmt: skip
    elif box.image is not None:
        binds = [word for mount in mounts for word in ("--bind", mount)]
        inside = ["apptainer", "exec", "--nv", *binds, "--pwd", str(Path.cwd()), box.image]
    python = cluster.python or (sys.executable if box.image is None else "python")
    lines = [shlex.join(["srun", *options])]
    if inside:
        lines.append(shlex.join(inside))
    if job.wrapped:
        lines.append('bash -c "$task" task')
    lines.append(shlex.join([python, "-m", f"launch.{job.verb}"]))
    lines += [f"  {shlex.quote(argument)}" for argument in job.arguments]
    return " \\\n  ".join(lines) + " &\nstep=$!\n"


def _ending(cluster: SlurmSettings, requeues: bool) -> str:
    if not requeues:
        return "exit $code\n"
    crash = f" || [ $code != {EXIT_CODE} ]" if cluster.requeue_after_crash else ""
    return f"""\
if [ $code != 0 ] && [ -z "$ended" ] && {{ [ $code = {REQUEUE_EXIT_CODE} ] || [ -n "$warned" ]{crash}; }}; then
  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {cluster.max_requeues} ]; then
    echo "$(date +%FT%T) exit code $code: back into the queue"
    scontrol requeue "$SLURM_JOB_ID" && requeued=yes
  else
    echo "$(date +%FT%T) exit code $code: not requeued, {cluster.max_requeues} times are enough (cluster.max_requeues)"
  fi
fi
exit $code
"""


def _quoted(word: str) -> str:
    """Quote a value of an #SBATCH line, where spaces separate and quotes hold together."""
    return f'"{word}"' if any(character in word for character in " \t#'") else word
