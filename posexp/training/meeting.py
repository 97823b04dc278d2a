"""Where the processes that train one run together meet: a store of PyTorch's, which all of them can read and write.

Neither that store nor what the processes exchange afterwards asks for a password. So those of one machine listen on its
loopback address, where the network does not reach.
"""

import functools
import os
import socket

import torch.distributed as dist

from posexp.jobs.ranks import Place

HOST = "127.0.0.1"


def store(here: Place) -> dist.Store:
    """The one that the environment names, in torchrun's words. Of several machines it listens on every interface."""
    agent = (
        os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    )  # posexp/training/processes.py or torchrun has one already
    if here.one_machine:
        use_loopback()
        if here.rank == 0 and not agent:
            return kept_store(int(os.environ["MASTER_PORT"]), here.size)
    found, _, _ = next(dist.rendezvous("env://"))
    return found


def loopback_store(port: int = 0, size: int | None = None) -> dist.TCPStore:
    """A new one at `port` (0: a free one), for `size` processes, which are waited for, or for any number.

    It is given its socket: its own would listen on every interface.
    """
    listener = socket.create_server((HOST, port))
    port, handle = listener.getsockname()[1], listener.detach()
    return dist.TCPStore(HOST, port, size, True, wait_for_workers=size is not None, master_listen_fd=handle)


kept_store = functools.cache(loopback_store)  # a sweep meets again for every run


def use_loopback() -> None:
    """For what Gloo and NCCL exchange. (The network may not know the machine's name, either.)"""
    names = {name for _, name in socket.if_nameindex()}
    for name in ("lo", "lo0"):
        if name in names:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
