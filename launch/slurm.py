"""`cluster=slurm`: writes an sbatch script that runs this command on a cluster, keeps it and submits it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from launch.abilities import ABILITIES, Ability, ability_of
from launch.compose import quote
from launch.slurm_script import Job, script
from launch.slurm_settings import SlurmSettings

OWN_VARIABLES = ("SLURM_", "TORCHELASTIC_")
"""Variables of the job this shell may itself run in: they would overrule what the script asks for."""
KEPT_VARIABLES = ("SLURM_CONF", "SLURM_CLUSTERS")


class Slurm(SlurmSettings):
    """The settings, and what becomes of a command under them."""

    def start(self, verb: str, config: DictConfig, arguments: Sequence[str]) -> None:
        """Write the script of `cami2v <verb> <arguments>` and submit it.

        Raises ValueError for a command the verb could not run as a job, and with sbatch's words if it refuses.
        """
        job = self.job(verb, config, arguments)
        if config.get("dry_run"):
            print(f"{script(job, self)}\ndry run: neither written nor submitted: {job.path}")
            return
        self.write(job)
        if not self.submit:
            print(f"{script(job, self)}\nwritten, not submitted: sbatch {shlex.quote(str(job.path))}")
            return
        number = sbatch(job.path)
        print(f"submitted job {number}: {job.path}\nlog: {job.log_of(number)}")

    def job(
        self,
        verb: str,
        config: DictConfig | None,
        arguments: Sequence[str],
        *,
        folder: Path | None = None,
        name: str | None = None,
        followed: bool = False,
    ) -> Job:
        """Describe `cami2v <verb> <arguments>` as a job.

        Without a config, arguments name the run themselves, `folder` (of script and logs) and `name` are given, and
        nothing is checked. Raises ValueError for a command the verb could not run as a job.
        """
        ability = ability_of(verb)
        processes = self._processes(verb, ability)
        if config is not None:
            if verb == "train" and self.check:
                _check_training(config, processes)
            name, folder = self.name or _run_name(verb, config), _folder(verb, config, self)
        assert name is not None, "a job without a config is told it"
        assert folder is not None, "a job without a config is told it"
        return Job(
            verb=verb, ability=ability, name=name, folder=folder,
            arguments=self._arguments(verb, ability, config, arguments),
            processes=processes, nodes=self.nodes, processes_per_node=processes // self.nodes, array=self.array,
            followed=followed,
        )  # fmt: skip

    def write(self, job: Job) -> None:
        """Write the job's script."""
        job.folder.mkdir(parents=True, exist_ok=True)
        job.path.write_text(script(job, self))
        job.path.chmod(0o755)

    def _processes(self, verb: str, ability: Ability) -> int:
        """Return the number of processes of the job, or of each task of an array."""
        shown = verb.replace("_", " ")
        if self.array is not None and ability.tasks_key is None:
            sharing = ", ".join(name for name, other in ABILITIES.items() if other.tasks_key)
            raise ValueError(
                f"cluster.array={self.array}: {shown} cannot be shared by the tasks of an array ({sharing})"
            )
        if ability.several_processes:
            return self.nodes * self.processes_per_node
        if self.nodes > 1 or (self.tasks_per_node or 1) > 1:
            raise ValueError(
                f"cluster: got nodes={self.nodes}, tasks_per_node={self.tasks_per_node}, but {shown} is one process "
                f"on one node (with workers of its own{'; cluster.array shares its work' if ability.tasks_key else ''})"
            )
        return 1

    def _arguments(self, verb: str, ability: Ability, config: DictConfig | None, arguments: Sequence[str]) -> list[str]:
        """Return the command line of the job: it runs there, and continues."""
        kept = [item for item in arguments if not re.match(r"[+~]*cluster(\.|=|$)", item)]
        added = ["cluster=local"]
        if verb == "train" and config is not None:
            # The same folder at every start, whatever its name is made of.
            kept = [item for item in kept if not re.match(r"(name|resume)=", item)]
            added += [f"name={quote(str(config.name))}", f"resume={quote(str(config.resume or 'auto'))}"]
        if self.array is not None:
            kept = [item for item in kept if not item.startswith(f"{ability.tasks_key}=")]
            added.append(f"{ability.tasks_key}={self.array}")
        return [*kept, *added]


def sbatch(script: Path, *, keep_open: Sequence[int] = ()) -> str:
    """Submit a script and return the job's number. Raises ValueError with sbatch's words if it refuses.

    `keep_open`: descriptors that stay open as long as Slurm is asked, also if this process dies meanwhile.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT_VARIABLES or not name.startswith(OWN_VARIABLES)
    }
    try:
        answer = subprocess.run(
            ["sbatch", "--parsable", str(script)], capture_output=True, text=True, env=environment, check=False,
            pass_fds=keep_open,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ValueError(
            f"{script} is written, but there is no sbatch on this machine's PATH; submit it on a login node: "
            f"sbatch {shlex.quote(str(script))}"
        ) from error
    if answer.returncode != 0:
        words = " ".join((answer.stderr or answer.stdout).split()) or f"exit code {answer.returncode}, no words"
        raise ValueError(f"sbatch refuses {script}: {words}")
    if answer.stderr.strip():
        print(answer.stderr.strip(), file=sys.stderr)
    return answer.stdout.strip().partition(";")[0]


def _check_training(config: DictConfig, processes: int) -> None:
    """Raise here what would stop the run on the cluster, as far as it does not depend on the machine."""
    # Imported here: the scripts of other verbs need neither models nor data.
    from launch.train import prepare

    there = config.copy()
    there.cluster = {"processes": processes}
    prepare(there, elsewhere=True)


def _run_name(verb: str, config: DictConfig) -> str:
    return str(config.name) if verb == "train" else verb.replace("_", "-")


def _folder(verb: str, config: DictConfig, cluster: Slurm) -> Path:
    """Return the folder of script and logs: in the run's own one, if there is a run."""
    if verb != "train":
        return Path(config.paths.runs, "slurm", cluster.name or _run_name(verb, config)).expanduser().resolve()
    run = Path(config.resume) if config.resume not in (None, "auto") else Path(config.paths.runs, str(config.name))
    return run.resolve() / "slurm"
