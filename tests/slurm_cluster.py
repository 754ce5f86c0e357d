"""A real Slurm of two nodes on this machine: its own munge, controller, node daemons, ports and configuration."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
PACKAGES = "slurmctld slurmd slurm-client munge"
NODES = ("node1", "node2")
FINISHED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


CONFIGURATION = """\
ClusterName=cami2v
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MailProg=/bin/true
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{second}] CPUs=8 RealMemory=64000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmCluster:
    """What tests ask of the cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """The variables of this shell, and which Slurm is meant."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def command(self, *words: str, check: bool = True) -> str:
        """Run one of Slurm's commands; return what it says."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, number: str) -> Mapping[str, str]:
        """Return what `scontrol show job` knows."""
        words = self.command("scontrol", "--oneliner", "show", "job", number).splitlines()[0].split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_until_finished(self, number: str, *, seconds: float) -> Mapping[str, str]:
        """Return the job's record once it has ended for good."""

        def ended() -> bool:
            return self.job(number)["JobState"] in FINISHED

        wait_for(ended, seconds=seconds, what=f"the end of job {number}", more=lambda: str(self.job(number)))
        return self.job(number)

    def logs(self) -> str:
        """Return the ends of the daemons' logs."""
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(self.folder.glob("*.log")))


def wait_for(happened: Callable[[], bool], *, seconds: float, what: str, more: Callable[[], str] = lambda: "") -> None:
    """Return once something has happened; fail after so many seconds."""
    give_up = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < give_up, f"waited {seconds} s for {what}\n{more()}"
        time.sleep(0.2)


@contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    """Start a cluster, and stop it with every job on it."""
    missing = [program for program in PROGRAMS if _found(program) is None]
    if missing:
        reason = f"no {', '.join(missing)} on this machine; on Debian: apt-get install {PACKAGES}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    # Sockets have short paths.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    daemons: list[subprocess.Popen[bytes]] = []
    cluster = SlurmCluster(folder)
    try:
        _configure(folder)
        munge = folder / "munge"
        own = [f"--{name}={munge / name}" for name in ("socket", "key-file", "log-file", "pid-file", "seed-file")]
        daemons.append(_start(cluster, "munged", "--foreground", "--force", *own))
        wait_for((munge / "socket").exists, seconds=20, what="munged")
        daemons.append(_start(cluster, "slurmctld", "-D", "-c"))
        daemons += [_start(cluster, "slurmd", "-D", "-N", node) for node in NODES]

        def both_idle() -> bool:
            states = cluster.command("sinfo", "--noheader", "--Node", "--format=%T", check=False).split()
            return states == ["idle", "idle"]

        wait_for(both_idle, seconds=60, what="two idle nodes", more=cluster.logs)
        yield cluster
    finally:
        if daemons:
            cluster.command("scancel", f"--user={getpass.getuser()}", check=False)
            wait_for(
                lambda: not cluster.command("squeue", "--noheader", check=False).strip(), seconds=60, what="no jobs"
            )
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path) -> None:
    for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge" / "key-file"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    controller, first = _free_ports(1), _free_ports(2)
    text = CONFIGURATION.format(
        folder=folder, host=socket.gethostname().partition(".")[0], user=getpass.getuser(), controller=controller,
        first=first, second=first + 1,
    )  # fmt: skip
    (folder / "slurm.conf").write_text(text)


def _free_ports(count: int) -> int:
    """Return the first of so many adjacent ports that nobody listens at."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first: int = probe.getsockname()[1]
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return first


def _start(cluster: SlurmCluster, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    with (cluster.folder / f"{program}.out.log").open("ab") as output:
        return subprocess.Popen(
            [_found(program) or program, *arguments], env=cluster.environment, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _found(program: str) -> str | None:
    """Daemons are where the PATH of ordinary users does not look."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
