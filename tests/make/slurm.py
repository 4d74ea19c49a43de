"""A real Slurm on this machine: munged, slurmctld and slurmd on loopback, in a folder that is thrown away."""

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
FINISHED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


def why_not() -> str | None:
    """Reason why no Slurm can be started here; None where it can."""
    if os.geteuid() != 0:
        return "needs root: slurmd starts jobs as other users"
    if missing := [name for name in PROGRAMS if not _found(name)]:
        return f"no {', '.join(missing)} here: apt-get install slurm-wlm munge"
    return None


class Slurm:
    """A cluster of one node whose commands are those of any other Slurm.

    Parameters
    ----------
    folder
        Empty or new; holds configuration, logs, the queue's state and the sockets. A short path: a socket's may have
        107 characters.
    cpus, mem_mb, gpus
        What the node claims to have; nothing is enforced, so that several small jobs run at a time on a small machine.
        The GPUs are terminals: enough to be asked for and counted, not to be computed on.

    Attributes
    ----------
    env
        What a process needs in its environment for sbatch, srun, squeue and scontrol to find this cluster.

    Notes
    -----
    Partitions: ``main``, and ``urgent``, whose jobs requeue those of ``main`` when there is no room (preemption).
    A requeued job starts again after about 5 seconds (``cred_expire``), not 120 as usual.
    ``accounting_storage/none`` has no ``sacct``, which submitit asks whether a job died: a stand-in on PATH answers
    from ``scontrol``.
    """

    def __init__(self, folder: Path, *, cpus: int = 8, mem_mb: int = 64000, gpus: int = 4) -> None:
        self.folder, self.cpus, self.mem_mb, self.gpus = Path(folder), cpus, mem_mb, gpus
        self._daemons: list[subprocess.Popen] = []
        path = f"{self.folder / 'bin'}:{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin"
        self.env = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def __enter__(self) -> "Slurm":
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        try:
            self._start_munge()
            controller, node = _free_ports(2)
            self._write(controller, node)
            self._start("slurmctld", "-D", "-i", "-f", self.env["SLURM_CONF"])
            self._start("slurmd", "-D", "-N", "node", "-f", self.env["SLURM_CONF"])
            self._until(lambda: self._state() in ("idle", "mixed", "allocated"), 60, "the node did not become idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            if len(self._daemons) == 3:
                self.run("scancel", "--quiet", "--signal=KILL", *self._queued(), check=False)
                self.run("scancel", "--quiet", *self._queued(), check=False)
                self._until(lambda: not self._queued(), 10, "jobs did not end")
        for daemon in reversed(self._daemons):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()
        self._daemons = []

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's environment (or ``env``) without traces of another Slurm, with what finds this one."""
        kept = {k: v for k, v in (env or os.environ).items() if not k.startswith(("SLURM_", "SBATCH_", "SUBMITIT_"))}
        return kept | self.env

    def run(
        self, *command: object, check: bool = True, timeout_s: float = 60, **more: object
    ) -> subprocess.CompletedProcess:
        """Run a command that finds this cluster; an error says what it printed."""
        words = [str(word) for word in command]
        more.setdefault("env", self.environment())
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, **more)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def sbatch(self, script: str, *options: object, cwd: Path | None = None, **more: object) -> str:
        """Submit a script (its lines after ``#!/bin/bash``); the job's id. Its output is ``cwd/slurm-<id>.out``."""
        text = "#!/bin/bash\n" + textwrap.dedent(script)
        return self.run("sbatch", "--parsable", *options, input=text, cwd=cwd or self.folder, **more).stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job (``12`` or ``12_3``): JobState, ExitCode, Restarts, NumTasks, …; empty if unknown.

        Of an array without ``_``, the first record.
        """
        done = self.run("scontrol", "-o", "-d", "show", "job", job, check=False)
        if done.returncode:
            return {}
        return dict(re.findall(r"(\S+?)=(\S*)", done.stdout.partition("\n")[0]))

    def jobs(self) -> list[dict[str, str]]:
        """All jobs that Slurm still remembers, each as in :meth:`job`."""
        lines = self.run("scontrol", "-o", "show", "job", check=False).stdout.splitlines()
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if line.startswith("JobId=")]

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, …"""
        return self.job(job).get("JobState", "UNKNOWN")

    def wait(self, job: str, *, states: tuple[str, ...] = FINISHED, timeout_s: float = 120) -> str:
        """Wait until a job is in one of the states (finished, if nothing is said); that state."""
        self._until(lambda: self.state(job) in states, timeout_s, f"job {job} did not become {' or '.join(states)}")
        return self.state(job)

    def requeue(self, job: str) -> None:
        """Kill a running job and put it into the queue again, as a preemption does."""
        self.run("scontrol", "requeue", job)

    def hold(self) -> None:
        """Let no queued job start until :meth:`release`."""
        self.run("scontrol", "update", "PartitionName=main", "State=DOWN")

    def release(self) -> None:
        """Let queued jobs start."""
        self.run("scontrol", "update", "PartitionName=main", "State=UP")

    def logs(self) -> str:
        """Last lines of the daemons' logs."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-25:])
            for path in sorted(self.folder.glob("*.log"))
        )

    def _queued(self) -> list[str]:
        return self.run("squeue", "-h", "-o", "%A").stdout.split()

    def _state(self) -> str:
        return self.run("sinfo", "-h", "-o", "%T", "-p", "main", check=False).stdout.strip()

    def _until(self, met: Callable[[], object], timeout_s: float, complaint: str) -> None:
        end = time.monotonic() + timeout_s
        while not met():
            if dead := [str(d.args) for d in self._daemons if d.poll() is not None]:
                raise RuntimeError(f"{', '.join(dead)} ended\n{self.logs()}")
            if time.monotonic() > end:
                queue = self.run("squeue", "-a", check=False).stdout
                raise TimeoutError(f"{complaint} within {timeout_s:g} s\n{queue}{self.logs()}")
            time.sleep(0.2)

    def _start(self, name: str, *options: str) -> None:
        with (self.folder / f"{name}.out.log").open("w") as log:
            words = [_found(name), *options]
            self._daemons.append(
                subprocess.Popen(
                    words, env=self.environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                    cwd=self.folder, start_new_session=True,
                    preexec_fn=_end_with_parent,
                )
            )  # fmt: skip

    def _start_munge(self) -> None:
        folder = self.folder
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        socket_file = folder / "munge.sock"
        self._start(
            "munged", "--foreground", "--force", f"--socket={socket_file}", f"--key-file={key}",
            f"--pid-file={folder / 'munged.pid'}", f"--log-file={folder / 'munged.log'}",
            f"--seed-file={folder / 'munged.seed'}",
        )  # fmt: skip
        self._until(socket_file.exists, 20, "munged did not open its socket")

    def _write(self, controller: int, node: int) -> None:
        host = socket.gethostname().split(".")[0]
        sacct = self.folder / "bin" / "sacct"
        sacct.write_text(f"#!{sys.executable}\n{_SACCT}")
        sacct.chmod(0o755)
        gpus = f"Gres=gpu:{self.gpus}" if self.gpus else ""
        (self.folder / "gres.conf").write_text(f"Name=gpu File=/dev/tty[0-{self.gpus - 1}]\n" if self.gpus else "")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # read at start, not used
        (self.folder / "slurm.conf").write_text(
            f"""\
ClusterName=skyloom
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self.folder / "munge.sock"},cred_expire=5
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={self.folder / "state"}
SlurmdSpoolDir={self.folder / "spool"}
SlurmctldPidFile={self.folder / "slurmctld.pid"}
SlurmdPidFile={self.folder / "slurmd.pid"}
SlurmctldLogFile={self.folder / "slurmctld.log"}
SlurmdLogFile={self.folder / "slurmd.log"}
PlugStackConfig={self.folder / "plugstack.conf"}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MpiDefault=none
ReturnToService=2
KillWait=5
MessageTimeout=60
SlurmdParameters=config_overrides
DefMemPerCPU=1000
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={self.cpus} RealMemory={self.mem_mb} {gpus}
PartitionName=main Nodes=node Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=node MaxTime=INFINITE State=UP PriorityTier=10
"""
        )
        (self.folder / "plugstack.conf").write_text("")


@contextlib.contextmanager
def cluster(**options: int) -> Iterator[Slurm]:
    """A running :class:`Slurm` in a short temporary folder that is removed afterwards.

    In a test module::

        @pytest.fixture(scope="module")
        def slurm():
            if reason := why_not():
                pytest.skip(reason)
            with cluster() as running:
                yield running

    (``tests/slurm/conftest.py`` has this fixture for all of ``tests/slurm``.)
    """
    folder = Path("/tmp") / f"slurm-{os.getpid()}-{secrets.token_hex(3)}"
    folder.mkdir(mode=0o755)
    try:
        with Slurm(folder, **options) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin")


def _end_with_parent() -> None:
    """Let a daemon end with the tests, also when those are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of Linux


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


# The stand-in for sacct: `sacct -o JobID,State,NodeList --parsable2 -j 1 -j 2`, as submitit asks it.
_SACCT = r'''
"""sacct of a cluster without accounting: the state of jobs, from what the controller still remembers."""
import re
import subprocess
import sys

asked = {word for before, word in zip(sys.argv, sys.argv[1:]) if before == "-j"}
done = subprocess.run(["scontrol", "-o", "show", "job"], capture_output=True, text=True, check=True)
print("JobID|State|NodeList")
tasks = {}
for line in done.stdout.splitlines():
    job = dict(re.findall(r"(\S+?)=(\S*)", line))
    array = job.get("ArrayJobId")
    if not asked & {job.get("JobId"), array}:
        continue
    task = job.get("ArrayTaskId", "")
    if array:
        tasks.setdefault(array, []).append(task)
    name = f"{array}_{task}" if task.isdecimal() else f"{array}_[{task}]" if array else job["JobId"]
    print(f"{name}|{job['JobState']}|{job.get('NodeList', '')}")
for array, known in tasks.items():  # a task that is cancelled before it has started leaves no record
    if all(task.isdecimal() for task in known):
        for task in set(range(max(map(int, known)))) - set(map(int, known)):
            print(f"{array}_{task}|CANCELLED|")
'''
