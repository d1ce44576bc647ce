"""deploy/slurm/advprop.sbatch under a real Slurm; test_slurm_script.py plays what is hard to bring about here."""
import json
import pathlib
import tempfile
import time

import namespaces
import pytest
import slurm_cluster
import support

SCRIPT = support.ROOT / "deploy" / "slurm" / "advprop.sbatch"
LONG = ("train.epochs=20", "eval.every_epochs=0")  # some seconds; 10 steps an epoch
ENDLESS = ("train.epochs=1000", "eval.every_epochs=0")  # minutes: it is ended by us


@pytest.fixture(scope="module")
def slurm():
    with tempfile.TemporaryDirectory(prefix="apd-slurm-") as folder:
        try:
            with slurm_cluster.cluster(pathlib.Path(folder)) as running:
                yield running
        except namespaces.Unavailable as error:
            pytest.skip(str(error))


def test_job_on_all_nodes_ends_bitwise_where_one_host_ends(slurm, workdir, tiny_yaml, advprop):
    advprop("train", tiny_yaml, "--workers", "1", "--run", workdir / "undisturbed", "--quiet")
    per_node = 3 if len(slurm.nodes) == 2 else 5  # two workers at least talk over shared memory
    job = slurm.submit(workdir, "-N", len(slurm.nodes), "-n", 5, f"--ntasks-per-node={per_node}", SCRIPT,
                       "run.yaml")
    job.wait("COMPLETED")
    status = json.loads((job.run / "status.json").read_text())
    assert {worker["host"] for worker in status["worker"]} == set(slurm.nodes)
    assert "clean accuracy, main BN" in job.output()
    assert "shmem" not in (job.run / "logs" / "mpirun.log").read_text()
    support.assert_same_state(support.state_of(job.run), support.state_of(workdir / "undisturbed"))


def test_configuration_that_cannot_work_fails_the_job_for_good(slurm, workdir, tiny_yaml):
    job = slurm.submit(workdir, "-n", 3, SCRIPT, "run.yaml", "train.lanes=1")
    facts = job.wait("FAILED")
    assert facts["ExitCode"] == "78:0" and facts["Restarts"] == "0", job.output()


def test_cancelled_job_saves_and_leaves_nothing(slurm, workdir, tiny_yaml):
    job = slurm.submit(workdir, "-N", len(slurm.nodes), "-n", 3, SCRIPT, "run.yaml", *ENDLESS)
    job.wait_for_step(15)
    assert len(job.processes()) >= 6  # the script, train, mpirun, the coordinator, two workers
    slurm.ask("scancel", job.number)
    job.wait("CANCELLED")
    slurm_cluster.wait_until(lambda: not job.processes(), "the end of all processes")
    assert slurm.shared_memory() == []
    assert list((slurm.folder / "tmp").glob("ompi.*/*")) == []
    assert job.facts()["JobState"] == "CANCELLED"


def test_requeued_by_an_administrator_saves_its_step_first(slurm, workdir, tiny_yaml):
    job = slurm.submit(workdir, "-n", 3, SCRIPT, "run.yaml", *ENDLESS)
    job.wait_for_step(15)
    slurm.ask("scontrol", "requeue", job.number)
    facts = job.wait("PENDING")
    slurm.ask("scancel", job.number)
    assert facts["Restarts"] == "1"
    status = json.loads((job.run / "status.json").read_text())
    assert status["state"] == "done" and status["step"] == status["checkpoint"]["step"] < 10000


def test_time_limit_drains_requeues_and_ends_bitwise_where_an_undisturbed_run_ends(
        slurm, workdir, tiny_yaml, advprop):
    begin = time.monotonic()
    advprop("train", tiny_yaml, *LONG, "--workers", "2", "--run", workdir / "undisturbed", "--quiet")
    half_s = (time.monotonic() - begin) / 2
    # Slurm acts on time limits by its clock only: it has to find the job half way, which takes some aiming.
    for _ in range(5):
        time.sleep((slurm.next_check() - half_s) % slurm_cluster.CHECK_S)
        job = slurm.submit(workdir, "-n", 3, "--time=2", SCRIPT, "run.yaml", *LONG)
        restarts = int(job.wait("COMPLETED")["Restarts"])
        if restarts >= 1:
            break
    assert restarts >= 1, job.output()
    assert "USR1: draining" in job.output() and "back in the queue" in job.output()
    support.assert_same_state(support.state_of(job.run), support.state_of(workdir / "undisturbed"))
