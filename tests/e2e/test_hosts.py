"""A run over two hosts: network namespaces with a cable between them, each with its own host name."""
import json
import os
import subprocess

import namespaces
import pytest
import support

AGENT = """#!/bin/bash
# rsh agent of mpirun: HOST COMMAND... -> the command in the namespace of that name
host=$1
shift
exec ip netns exec "$host" unshare --uts bash -c 'hostname "$1"; shift; exec bash -c "$*"' _ "$host" "$@"
"""


@pytest.fixture
def hosts():
    try:
        with namespaces.two_hosts() as addresses:
            yield addresses
    except namespaces.Unavailable as error:
        pytest.skip(str(error))


def test_two_hosts_end_bitwise_where_one_host_ends(tiny_data, workdir, hosts):
    (a, b), net = hosts, f"{min(hosts.values())}/24"
    config = support.write_config(workdir / "run.yaml", tiny_data, train={"max_steps": 12})
    support.run("train", config, "--workers", 2, "--run", workdir / "one", "--quiet")

    agent, hostfile = workdir.parent / "agent", workdir / "hosts"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    hostfile.write_text(f"{a} slots=2\n{b} slots=1\n")
    environment = {**os.environ, "OMPI_MCA_plm": "rsh", "OMPI_MCA_plm_rsh_agent": str(agent),
                   "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "tcp,vader,self",
                   "OMPI_MCA_btl_tcp_if_include": net, "OMPI_MCA_oob_tcp_if_include": net}
    done = subprocess.run(
        ["ip", "netns", "exec", a, "unshare", "--uts", "bash", "-c", 'hostname "$0"; exec "$@"', a,
         support.ADVPROP, "train", str(config), "--workers", "2", "--hostfile", str(hostfile), "--run",
         str(workdir / "two"), "--quiet"],
        env=environment, capture_output=True, text=True, timeout=support.TIMEOUT_S)
    logs = "".join(path.read_text() for path in (workdir / "two" / "logs").glob("*"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    status = json.loads((workdir / "two" / "status.json").read_text())
    assert [worker["host"] for worker in status["worker"]] == [a, b]
    support.assert_same_state(support.state_of(workdir / "two"), support.state_of(workdir / "one"))
