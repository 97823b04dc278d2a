"""The rendezvous of the processes that train one run: a PyTorch store that all of them can read and write.

Neither the store nor the later exchange between the processes is authenticated. Processes on one machine therefore
listen on the loopback address, which the network cannot reach.
"""

import functools
import os
import socket

import torch.distributed as dist

from posexp.jobs.ranks import Place

HOST = "127.0.0.1"


def store(here: Place) -> dist.Store:
    """Return the store of torchrun's environment variables. With several machines it listens on every interface."""
    # torchrun or posexp/training/processes.py has a store already
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if here.one_machine:
        use_loopback()
        if here.rank == 0 and not agent:
            return kept_store(int(os.environ["MASTER_PORT"]), here.size)
    found, _, _ = next(dist.rendezvous("env://"))
    return found


def loopback_store(port: int = 0, size: int | None = None) -> dist.TCPStore:
    """Create a store at `port` (0: any free port) and wait for `size` processes (None: do not wait).

    The socket is passed in, because the store would otherwise listen on every interface.
    """
    listener = socket.create_server((HOST, port))
    port, handle = listener.getsockname()[1], listener.detach()
    return dist.TCPStore(HOST, port, size, True, wait_for_workers=size is not None, master_listen_fd=handle)


kept_store = functools.cache(loopback_store)  # reused by all runs of a sweep


def use_loopback() -> None:
    """Make Gloo and NCCL use the loopback interface, which also works if the host name cannot be resolved."""
    names = {name for _, name in socket.if_nameindex()}
    for name in ("lo", "lo0"):
        if name in names:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
