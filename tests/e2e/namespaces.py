"""Two hosts on this machine: network namespaces with a cable between them."""
import contextlib
import os
import shutil
import subprocess


class Unavailable(Exception):
    """This machine cannot do it; the text says why."""


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def two_hosts():
    """{name: address} of two namespaces joined by a veth pair in a network /24; removed at the end."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise Unavailable("network namespaces need root and iproute2")
    tag = os.getpid() % 200
    hosts = {f"apd{tag}{letter}": f"10.77.{tag}.{i + 1}" for i, letter in enumerate("ab")}
    a, b = hosts
    try:
        ip("netns", "add", a)
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"no network namespaces here: {error.stderr.strip()}") from error
    try:
        ip("netns", "add", b)
        ip("link", "add", f"v{a}", "netns", a, "type", "veth", "peer", "name", f"v{b}", "netns", b)
        for name, address in hosts.items():
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", f"v{name}")
            ip("-n", name, "link", "set", f"v{name}", "up")
        yield hosts
    finally:
        for name in hosts:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
