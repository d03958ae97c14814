"""The faults: signals to processes in containers, and dropped packets."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.faults.clock import now
from tests.support.stack import Stack, docker

#: The container's main process: the child of its init, process 1.
_MAIN = "$(cat /proc/1/task/1/children)"


def kill(container: str) -> float:
    """Kill a container's main process by SIGKILL, and return the time.

    After `docker kill`, the restart policy would not start the container again.
    """
    # The command ends with the container: its status means nothing.
    subprocess.run(
        ["docker", "exec", container, "sh", "-c", f"kill -9 {_MAIN}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return now()


def kill_process(container: str, process: int) -> None:
    """Kill a process of a container by SIGKILL; it may have ended already."""
    with suppress(AssertionError):
        docker("exec", container, "sh", "-c", f"kill -9 {process}")


@contextmanager
def stopped(container: str) -> Iterator[None]:
    """Stop all processes of a container except its init during the block."""
    docker("exec", container, "sh", "-c", "kill -STOP -1")
    try:
        yield
    finally:
        docker("exec", container, "sh", "-c", "kill -CONT -1")


@contextmanager
def cut(stack: Stack, container: str, address: str) -> Iterator[None]:
    """Drop all packets between a container and an address, both ways."""
    process = str(stack.inspect(container)["State"]["Pid"])
    rules = (("INPUT", "--source"), ("OUTPUT", "--destination"))

    def each(action: str) -> None:
        for chain, side in rules:
            inside = ("nsenter", "--target", process, "--net")
            subprocess.run(
                [*inside, "iptables", "--wait", action, chain, side, address, "--jump", "DROP"],
                capture_output=True,
                timeout=30,
                check=True,
            )

    each("--insert")
    try:
        yield
    finally:
        each("--delete")


def address(stack: Stack, container: str) -> str:
    """Return a container's address on the stack's network."""
    (network,) = stack.inspect(container)["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def gateway(stack: Stack, container: str) -> str:
    """Return this machine's address on the stack's network."""
    (network,) = stack.inspect(container)["NetworkSettings"]["Networks"].values()
    return str(network["Gateway"])
