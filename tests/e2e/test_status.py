"""A client made with stock protobuf from advprop.proto sees what `advprop status` sees, while a run runs."""
import json
import socket
import subprocess
import sys

import pytest
import support

protobuf = pytest.importorskip("google.protobuf", reason="python3-protobuf is not installed")


@pytest.fixture(scope="module")
def pb(tmp_path_factory):
    out = tmp_path_factory.mktemp("pb")
    subprocess.run(["protoc", f"--proto_path={support.ROOT / 'proto'}", f"--python_out={out}",
                    "advprop.proto"], check=True)
    sys.path.insert(0, str(out))
    import advprop_pb2
    return advprop_pb2


class Client:
    def __init__(self, pb, run_dir):
        self.pb, self.socket = pb, socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(run_dir / "ctl.sock"))
        self.stream = self.socket.makefile("rb")

    def ask(self, **request):
        payload = self.pb.ClientRequest(id=7, **request).SerializeToString()
        self.socket.sendall(bytes([len(payload)]) + payload)
        return self.read()

    def read(self):
        size = shift = 0
        while True:
            (byte,) = self.stream.read(1)
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        reply = self.pb.ServerReply()
        reply.ParseFromString(self.stream.read(size))
        assert reply.id == 7
        return reply


def seen_by_cli(run_dir):
    status = json.loads(support.run("status", run_dir, "--json").stdout)
    last = status.get("last") or {}
    return {
        "step": status["step"], "epoch": status["epoch"],
        "losses": [last.get(key, 0) for key in ("loss_clean", "loss_noise", "loss_adv")],
        "workers": [(w["rank"], w["lane_first"], w["lane_count"]) for w in status["worker"]],
        "phases": [w["phase"] for w in status["worker"]],
    }


def seen_by_client(pb, client):
    status = client.ask(get_status=pb.GetStatus()).status
    return {
        "step": status.step, "epoch": status.epoch,
        "losses": [status.last.loss_clean, status.last.loss_noise, status.last.loss_adv],
        "workers": [(w.rank, w.lane_first, w.lane_count) for w in status.worker],
        "phases": [pb.Phase.Name(w.phase)[len("PHASE_"):].lower() for w in status.worker],
    }


def shards_by_cli(run_dir):
    status = json.loads(support.run("status", run_dir, "--json", "--shards").stdout)
    return {(w["rank"], lane["lane"], lane["epoch"]): lane["shard"]
            for w in status["shards"]["worker"] for lane in w["lane"]}


def shards_by_client(pb, client):
    reply = client.ask(get_shards=pb.GetShards()).shards
    return {(w.rank, lane.lane, lane.epoch): list(lane.shard) for w in reply.worker
            for lane in w.lane}


def test_python_client_and_command_see_the_same(tiny_data, workdir, pb):
    config = support.write_config(workdir / "run.yaml", tiny_data,
                                  train={"epochs": 400}, model={"width": 16})
    run_dir = workdir / "run"
    process = support.start("train", config, "--workers", 2, "--run", run_dir, "--quiet")
    try:
        support.wait_for_step(run_dir, 1, process)
        client = Client(pb, run_dir)
        # The run goes on between two looks: framed by two equal looks of the client, the command must
        # have seen the same. Phases change many times a step; only those that held still are compared.
        steps = phases = 0
        for _ in range(200):
            before, command, after = (seen_by_client(pb, client), seen_by_cli(run_dir),
                                      seen_by_client(pb, client))
            if before["step"] != after["step"]:
                continue
            for key in ("step", "epoch", "losses", "workers"):
                assert command[key] == before[key], key
            steps += 1
            if before["phases"] == after["phases"]:
                phases += command["phases"] == before["phases"]
            if steps >= 5 and phases >= 1:
                break
        assert steps >= 5 and phases >= 1
        lanes = {(w[0], lane) for w in before["workers"] for lane in range(w[1], w[1] + w[2])}
        for _ in range(20):
            by_client, by_cli = shards_by_client(pb, client), shards_by_cli(run_dir)
            if by_client == by_cli:
                break
        assert by_client == by_cli
        assert {(rank, lane) for rank, lane, _ in by_client} == lanes
        assert all(by_client.values())

        watch = Client(pb, run_dir)
        first = watch.ask(watch=pb.Watch(interval_ms=50)).status.step
        while watch.read().status.step <= first:
            pass
        assert client.ask(checkpoint=pb.Checkpoint()).checkpoint.sha256 != ""
        assert client.ask(drain=pb.Drain()).HasField("ack")
        process.communicate(timeout=support.TIMEOUT_S)
        assert process.returncode == 75
    finally:
        if process.poll() is None:
            support.run("stop", run_dir, check=None)
            process.communicate(timeout=support.TIMEOUT_S)
