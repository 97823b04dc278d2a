"""Training of one run by several processes, each of which computes a share of the sequences of every step.

Gradients are averaged over the processes, so a step equals that of one process up to rounding. Only the first process
writes files. PyTorch's DDP replicates the model in each process; FSDP2 shards it. Neither the store in which the
processes meet nor their later exchange is authenticated: processes on one machine therefore use the loopback interface,
which the network cannot reach.
Shape suffixes: B sequences of a batch, T tokens of a sequence.
"""

import functools
import gc
import itertools
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from posexp.config.commands import TrainCommand
from posexp.config.sections import Strategy
from posexp.errors import Misuse, PosexpError, RunFailed
from posexp.jobs.ranks import Place, place, translate_slurm
from posexp.model.base import Model
from posexp.model.decoder import build_model
from posexp.output import console
from posexp.training.outcome import PeerLost, RankFailed, deserialise, error_line, serialise

SEED_APART = 2_654_435_769  # 2^32 / golden ratio: its multiples are far apart in the 32 bits that a CPU generator uses
# Parts of the error messages of Gloo, NCCL and the store when another process has died.
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "failed to recv", "remote process exit")
HOST = "127.0.0.1"
JOINED = "joined"  # a key of the store of the parent: the number of processes that have met
parent: dist.Store | None = None  # the store of posexp/training/processes.py, which prints how each process ends
joined_before = itertools.count()  # a sweep joins once per run


@dataclass(frozen=True)
class Ranks:
    """The place of this process among the processes of a run, and their collective operations."""

    place: Place
    store: Any = None  # a dictionary shared by all processes

    @property
    def first(self) -> bool:
        return self.place.rank == 0

    def device(self, chosen: torch.device) -> torch.device:
        """Return the GPU of this process if a GPU was chosen, else `chosen`."""
        if self.place.size == 1 or chosen.type != "cuda":
            return chosen
        # srun may make only one GPU visible to each process
        return torch.device("cuda", self.place.local % torch.cuda.device_count())

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block in the first process, then in the others, which reuse its results.

        An error of the first process is raised in all, that of another process only there, as RankFailed. The others
        poll the store, because PyTorch's collective operations have a timeout.
        """
        if self.place.size == 1:
            yield
        elif self.first:
            try:
                yield
            except BaseException as error:
                self.store.set("first", serialise(error))
                raise
            self.store.set("first", "")
        else:
            while not self.store.check(["first"]):
                time.sleep(0.05)
            if outcome := self.store.get("first"):
                raise deserialise(outcome)
            try:
                yield
            except PosexpError as error:
                raise RankFailed(f"rank {self.place.rank} on {socket.gethostname()}: {error}") from error

    def share(self, x_BT: Tensor) -> Tensor:
        """Return this process's sequences of a batch."""
        return x_BT.chunk(self.place.size)[self.place.rank]

    def seed(self, seed: int) -> int:
        """Return the seed of draws that must differ between processes."""
        return seed + self.place.rank * SEED_APART

    def mean(self, total: Tensor) -> Tensor:
        """Return the mean of `total` over the processes."""
        if self.place.size == 1:
            return total
        total = total.clone()
        dist.all_reduce(total)
        return total / self.place.size

    def same_step(self, step: int) -> int:
        """Return `step`. Raises RunFailed if the processes load checkpoints of different steps."""
        least, most = -self.largest(-step), self.largest(step)
        if least != most:
            steps = f"{self.place.size} processes load checkpoints of different steps, {least} and {most}"
            raise RunFailed(f"the {steps}: use the same results folder for all of them")
        return step

    def largest(self, number: int) -> int:
        """Return the largest `number` of the processes, the same in all of them."""
        if self.place.size == 1:
            return number
        found = torch.tensor(number)  # on the CPU, to avoid synchronising with a GPU
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)


@contextmanager
def joined(config: TrainCommand, device: torch.device) -> Iterator[Ranks]:
    """Join the group of the other processes, if there are any, for the block.

    Raises Misuse if the sequences of a step cannot be divided equally among the processes, PeerLost if one has died.
    """
    here = place()
    if here.size == 1:
        yield Ranks(here)
        return
    console.logger.disabled = not Ranks(here).first
    check_share(config, here.size)
    try:
        ranks = meet(here, device)
        if parent is not None:
            parent.add(JOINED, 1)
        yield ranks
    except Exception as error:  # do not wait for the others, which may have died
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST):
            line = f"rank {here.rank} lost the connection to another of the {here.size} processes"
            error = PeerLost(f"{line}; the same command goes on from the last checkpoint")
        own = isinstance(error, (RankFailed, PeerLost)) or not isinstance(error, PosexpError)
        if own and console.logger.disabled and parent is None:
            print(f"posexp: error: {error_line(error)}", file=sys.stderr, flush=True)
        raise error
    except BaseException as stopped:  # in all processes at the same step
        traceback.clear_frames(stopped.__traceback__)
        part()
        raise
    part()


def part() -> None:
    """Leave the process group, if there is one.

    A distributed module must be deleted before, or one process may wait for another forever.
    """
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def meet(here: Place, chosen: torch.device) -> Ranks:
    """Create the group of all processes, with NCCL for tensors on a GPU and Gloo for tensors on the CPU."""
    part()  # leave the group of an earlier run that failed
    translate_slurm()
    if here.one_machine:  # also works if the host name cannot be resolved
        for name in {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
    # torchrun and posexp/training/processes.py have a store already
    if here.one_machine and here.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        store = kept_store(int(os.environ["MASTER_PORT"]), here.size)
    else:  # that of rank 0, which listens on every interface if there are several machines
        store, _, _ = next(dist.rendezvous("env://"))
    ranks = Ranks(here, dist.PrefixStore(f"posexp {next(joined_before)}", store))
    device = ranks.device(chosen)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=ranks.store, rank=here.rank, world_size=here.size)
    return ranks


def loopback_store(port: int = 0, size: int | None = None) -> dist.TCPStore:
    """Create a store at `port` (0: any free port) and wait for `size` processes (None: do not wait).

    The socket is passed in, because the store would otherwise listen on every interface.
    """
    listener = socket.create_server((HOST, port))
    port, handle = listener.getsockname()[1], listener.detach()
    return dist.TCPStore(HOST, port, size, True, wait_for_workers=size is not None, master_listen_fd=handle)


kept_store = functools.cache(loopback_store)  # reused by all runs of a sweep


def check_share(config: TrainCommand, size: int) -> None:
    """Raise Misuse if `size` differs from trainer.devices, or does not divide the sequences of a micro-batch."""
    if config.trainer.devices not in (1, size):
        devices = f"trainer.devices={config.trainer.devices}"
        raise Misuse(f"{devices}, but torchrun or srun has started {size} processes: remove trainer.devices")
    sequences = config.train.batch_tokens // config.train.length // config.train.accumulate
    if sequences % size:
        batch = "micro-batch" if config.train.accumulate > 1 else "step"
        remedy = "change trainer.devices, train.batch_tokens or train.accumulate"
        raise Misuse(f"{size} processes cannot share the {sequences} sequences of a {batch} equally: {remedy}")


class Objective(nn.Module):
    """A module whose forward is the loss, because DDP wraps forward."""

    def __init__(self, model: Model, loss: Callable):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x_BT: Tensor, y_BT: Tensor) -> Tensor:
        return self.loss(x_BT, y_BT)


def distribute(model: Model, config: TrainCommand, ranks: Ranks, compiled: bool) -> Callable:
    """Return the function of the loss of a process's share of a batch, with the gradient of the whole batch.

    FSDP shards the weights in place, so the optimizer must be built afterwards. Raises Misuse for weights that FSDP
    cannot shard.
    """
    if compiled:
        torch.compiler.reset()  # earlier runs of a sweep count towards PyTorch's limit of eight graphs of `loss`
    if ranks.place.size > 1 and config.trainer.strategy is Strategy.fsdp:
        return shard(model, compiled)
    loss = torch.compile(model.loss) if compiled else model.loss
    if ranks.place.size == 1:
        return loss
    # DDP's graph splitting does not support FlexAttention.
    torch._dynamo.config.optimize_ddp = False
    return nn.parallel.DistributedDataParallel(Objective(model, loss), find_unused_parameters=rests(config))


def shard(model: Model, compiled: bool) -> Callable:
    """Shard each block, then the other weights. Raises Misuse for a scalar weight, which FSDP cannot shard."""
    from torch.distributed.fsdp import fully_shard

    for name, weight in model.named_parameters():
        if weight.ndim == 0:
            raise Misuse(f"trainer.strategy=fsdp cannot shard {name}, a single number: use trainer.strategy=ddp")
    # of the chosen device, not of the machine's accelerator
    mesh = dist.init_device_mesh(model.embedding.weight.device.type, (dist.get_world_size(),))
    for block in model.blocks:
        if compiled:
            block.forward = compiled_in_training(block)
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model.loss


def compiled_in_training(block: nn.Module) -> Callable:
    """Compile the forward of a block, without the hooks of FSDP. Evaluation, with its many shapes, stays eager."""
    eager = block.forward
    fast = torch.compile(eager)

    def forward(*inputs: Any, **options: Any) -> Tensor:
        return (fast if block.training else eager)(*inputs, **options)

    return forward


def rests(config: TrainCommand) -> bool:
    """Return whether a weight may get no gradient in a step, as in a scheme that is dropped before the end."""
    model = build_model(config, 2).train()
    if not list(model.scheme.parameters()):
        return False
    tokens_BT = torch.zeros(1, 2, dtype=torch.long)
    missing = False
    for share in (0.0, 1.0):
        model.scheme.progress(share)
        loss = model.loss(tokens_BT, tokens_BT)
        missing |= None in torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return missing


def exchanging(compute_loss: Callable, last: bool) -> AbstractContextManager:
    """Return the context for the loss of a micro-batch, in which DDP exchanges gradients only after the last one.

    FSDP exchanges gradients after each, or every process would have to store the whole gradient.
    """
    if isinstance(compute_loss, nn.parallel.DistributedDataParallel) and not last:
        return compute_loss.no_sync()
    return nullcontext()
