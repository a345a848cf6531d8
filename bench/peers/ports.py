"""Ports of this machine that nobody listens on, for the servers of the peers."""

import socket
from contextlib import ExitStack


def free_ports(count: int) -> list[int]:
    """So many different free ports of the loopback interface."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
