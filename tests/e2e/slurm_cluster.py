"""A Slurm of our own in one folder: munged, slurmctld and one slurmd a node, with their own key and ports.

Two nodes where network namespaces can be made, each with its own host name, network and /dev/shm;
otherwise this host is the only node, and any user can do that.
"""
import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import time

import namespaces
import support

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
PATH = os.environ["PATH"] + ":/usr/sbin"
ENTER = """\
set -e
hostname "$0"
mount -t tmpfs tmpfs /dev/shm
exec "$@"
"""
CONF = """\
ClusterName=advprop
SlurmUser={user}
SlurmdUser={user}
SlurmctldHost={first}({first_address})
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=30
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""
CHECK_S = 30  # slurmctld looks for time limits this often, from its start on
START_S = 60
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_until(condition, what, timeout=START_S):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not after {timeout} s"
        time.sleep(0.05)


class Cluster:
    def __init__(self, folder, hosts, separate):
        self.folder = folder
        self.nodes = list(hosts)
        self.separate = separate  # each node in namespaces of its own
        self.daemons = {}
        for name in ("state", "tmp", *(f"spool-{node}" for node in self.nodes)):
            (folder / name).mkdir()
        (folder / "munge.key").touch(0o600)
        (folder / "munge.key").write_bytes(os.urandom(128))
        controller_port, node_port = free_ports(2)
        nodes = "\n".join(f"NodeName={node} NodeAddr={address} CPUs=8 State=UNKNOWN"
                          for node, address in hosts.items())
        (folder / "slurm.conf").write_text(CONF.format(
            user=pwd.getpwuid(os.geteuid()).pw_name, folder=folder, first=self.nodes[0],
            first_address=hosts[self.nodes[0]], controller_port=controller_port, node_port=node_port,
            nodes=nodes))
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf"),
                            "TMPDIR": str(folder / "tmp"), "ADVPROP": support.ADVPROP}

    def on(self, node, *command):
        """The command line that runs on a node."""
        if not self.separate:
            return list(command)
        return ["nsenter", f"--net=/run/netns/{node}", "unshare", "--uts", "--mount",
                "bash", "-c", ENTER, node, *command]

    def start_daemon(self, name, line, ready):
        with open(self.folder / f"{name}.log", "w") as log:
            daemon = subprocess.Popen(line, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                                      stderr=log)
        self.daemons[name] = daemon
        try:
            wait_until(lambda: ready() or daemon.poll() is not None, name)
            failed = daemon.poll() is not None
        except AssertionError:
            failed = True
        if failed:
            text = (self.folder / f"{name}.log").read_text()
            raise namespaces.Unavailable(f"{name} does not start here: {text[-600:]}")

    def start(self):
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self.start_daemon("munged", ["munged", "--foreground", "--force", *files,
                                     f"--socket={self.folder}/munge.socket"],
                          (self.folder / "munge.socket").exists)
        self.started = time.monotonic()
        self.start_daemon("slurmctld", self.on(self.nodes[0], "slurmctld", "-D"),
                          lambda: self.ask("scontrol", "ping").returncode == 0)
        for node in self.nodes:
            self.start_daemon(f"slurmd-{node}", self.on(node, "slurmd", "-D", "-N", node),
                              lambda: self.ask("sinfo", "-h", "-n", node, "-o", "%T").stdout == "idle\n")

    def stop(self):
        if "slurmctld" in self.daemons:
            self.ask("scancel", "--user", str(os.geteuid()))
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not self.ask("squeue", "-h").stdout, "an empty queue")
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *command, **options):
        line = list(command)
        if self.separate:  # the network is enough, and hosts' names are of no interest
            line = ["nsenter", f"--net=/run/netns/{self.nodes[0]}", *line]
        return subprocess.run(line, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=START_S, **options)

    def next_check(self):
        """Seconds until slurmctld looks for time limits again."""
        return CHECK_S - (time.monotonic() - self.started) % CHECK_S

    def submit(self, folder, *arguments):
        """sbatch in a folder; the job."""
        done = self.ask("sbatch", "--parsable", *map(str, arguments), cwd=folder)
        assert done.returncode == 0, done.stderr
        return Job(self, folder, done.stdout.strip())

    def shared_memory(self):
        """What is in the nodes' own /dev/shm."""
        if not self.separate:
            return []
        return [name for node in self.nodes
                for name in os.listdir(f"/proc/{self.daemons[f'slurmd-{node}'].pid}/root/dev/shm")]


class Job:
    def __init__(self, cluster, folder, number):
        self.cluster = cluster
        self.number = number
        self.run = folder / "runs" / f"slurm-{number}"
        self.log = folder / f"advprop-{number}.out"

    def output(self):
        return self.log.read_text() if self.log.exists() else ""

    def facts(self):
        """{name: value} of `scontrol show job`."""
        shown = self.cluster.ask("scontrol", "--oneliner", "show", "job", self.number).stdout
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def wait(self, *states, timeout=120):
        """Until the job is in one of these states; its facts then."""
        facts = {}

        def arrived():
            nonlocal facts
            facts = self.facts()
            assert facts["JobState"] in states or facts["JobState"] not in ENDED, (facts, self.output())
            return facts["JobState"] in states

        wait_until(arrived, f"job {self.number} {states}", timeout)
        return facts

    def wait_for_step(self, step):
        def arrived():
            assert self.facts()["JobState"] not in ENDED, self.output()
            return support.has_step(self.run, step)

        wait_until(arrived, f"job {self.number} at step {step}")

    def processes(self):
        """The ids of its processes, on all nodes."""
        mark = f"SLURM_JOB_ID={self.number}\0".encode()
        conf = f"SLURM_CONF={self.cluster.folder}/slurm.conf\0".encode()
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit():
                    text = (entry / "environ").read_bytes() + b"\0"
                    if mark in text and conf in text:
                        found.append(int(entry.name))
        return found


@contextlib.contextmanager
def cluster(folder):
    """A running Cluster; Unavailable says why there cannot be one here."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        raise namespaces.Unavailable(f"no Slurm here: {', '.join(missing)} missing")
    with contextlib.ExitStack() as stack:
        try:
            hosts = stack.enter_context(namespaces.two_hosts())
            separate = True
        except namespaces.Unavailable:
            hosts = {socket.gethostname().split(".")[0]: "127.0.0.1"}
            separate = False
        made = Cluster(folder, hosts, separate)
        stack.callback(made.stop)
        made.start()
        yield made
