"""Several processes that train one run together: each computes its share of every step's windows.

Gradients are averaged over the processes, so that a step is that of one process to rounding. One of them, the first,
writes. With PyTorch's DDP each holds the whole model; with its FSDP2 they share it out.
Shape suffixes: B windows of a batch, T tokens of a window.
"""

import gc
import itertools
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
from posexp.model.decoder import Decoder, build_model
from posexp.output import console
from posexp.storage import untrusted
from posexp.training import meeting
from posexp.training.outcome import Alone, Lost, error_line, retold, told

SEED_APART = 2_654_435_769  # 2^32 / golden ratio: its multiples, of which a CPU's generator reads 32 bits, stay apart
# What Gloo, NCCL and the store say when another process is gone.
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "failed to recv", "remote process exit")
watched = False  # by posexp/training/processes.py, which tells how each process ends
joined_before = itertools.count()  # a sweep joins again for every run


@dataclass(frozen=True)
class Ranks:
    """What one of the processes knows of the others; of itself alone, where there are none."""

    place: Place
    store: Any = None  # a dictionary that all of them see

    @property
    def first(self) -> bool:
        return self.place.rank == 0

    def device(self, chosen: torch.device) -> torch.device:
        """The GPU of this process, if a GPU was chosen."""
        if self.place.size == 1 or chosen.type != "cuda":
            return chosen
        return torch.device("cuda", self.place.local % torch.cuda.device_count())  # srun may show each its own alone

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes through the block, then the others do: they find done what it did.

        What it raises they raise too. It may take any time: nobody waits in PyTorch, which would lose patience.
        """
        if self.place.size == 1:
            yield
        elif self.first:
            try:
                yield
            except BaseException as error:
                self.store.set("first", told(error))
                raise
            self.store.set("first", "")
        else:
            while not self.store.check(["first"]):
                time.sleep(0.05)
            if end := self.store.get("first").decode():
                raise retold(untrusted.parsed(end.encode()))
            try:
                yield
            except PosexpError as error:
                raise Alone(f"rank {self.place.rank} on {socket.gethostname()}: {error}") from error

    def share(self, x_BT: Tensor) -> Tensor:
        """This process's windows of a batch that all of them have."""
        return x_BT.chunk(self.place.size)[self.place.rank]

    def seed(self, seed: int) -> int:
        """Of draws that must differ from process to process."""
        return seed + self.place.rank * SEED_APART

    def mean(self, total: Tensor) -> Tensor:
        """Over the processes."""
        if self.place.size == 1:
            return total
        total = total.clone()
        dist.all_reduce(total)
        return total / self.place.size

    def agreed(self, stop: list[int]) -> int:
        """The signal that any process got, or 0: all hear of it in the same step."""
        return self.largest(stop[0] if stop else 0)

    def same_step(self, step: int) -> int:
        """`step`. Raises RunFailed where processes see different checkpoints."""
        least, most = -self.largest(-step), self.largest(step)
        if least != most:
            raise RunFailed(
                f"the {self.place.size} processes see checkpoints of different steps, {least} and {most}: give all of "
                "them the same results folder"
            )
        return step

    def largest(self, number: int) -> int:
        if self.place.size == 1:
            return number
        found = torch.tensor(number)  # on the CPU: a GPU would have to be waited for
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)


@contextmanager
def joined(config: TrainCommand, device: torch.device) -> Iterator[Ranks]:
    """Meets the other processes, if there are any, for as long as the block lasts.

    Raises Misuse if the windows of a step cannot be shared out among so many.
    """
    here = place()
    if here.size == 1:
        yield Ranks(here)
        return
    console.logger.disabled = not Ranks(here).first
    check_share(config, here.size)
    try:
        yield meet(here, device)
    except Exception as error:  # the others may be gone, and are not waited for
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST):
            error = Lost(
                f"rank {here.rank} lost another of the {here.size} processes, which has said why if it "
                "could; the same command goes on from the last checkpoint"
            )
        own = isinstance(error, (Alone, Lost)) or not isinstance(error, PosexpError)
        if own and console.logger.disabled and not watched:
            print(f"posexp: error: {error_line(error)}", file=sys.stderr, flush=True)
        raise error
    except BaseException as stopped:  # all at the same step
        traceback.clear_frames(stopped.__traceback__)
        part()
        raise
    part()


def part() -> None:
    """Leaves the group, if there is one. A module that is spread over its processes must be gone before: one that was
    kept let one process wait for the other for ever."""
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def meet(here: Place, chosen: torch.device) -> Ranks:
    """The group of all processes, which exchange what is on a GPU by NCCL and what is not by Gloo."""
    part()  # from those of a run before, which failed
    translate_slurm()
    store = meeting.store(here)
    ranks = Ranks(here, dist.PrefixStore(f"posexp {next(joined_before)}", store))
    device = ranks.device(chosen)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=ranks.store, rank=here.rank, world_size=here.size)
    return ranks


def check_share(config: TrainCommand, size: int) -> None:
    """Raises Misuse if `size` processes are not those that were asked for, or cannot share a step equally."""
    if config.trainer.devices not in (1, size):
        raise Misuse(
            f"trainer.devices={config.trainer.devices}, but torchrun or srun has started {size} processes: leave "
            "trainer.devices out"
        )
    windows = config.train.batch_tokens // config.train.length // config.train.accumulate
    if windows % size:
        piece = "piece of a step" if config.train.accumulate > 1 else "step"
        raise Misuse(
            f"{size} processes cannot share the {windows} windows of a {piece} equally: choose trainer.devices, "
            "train.batch_tokens and train.accumulate so that they can"
        )


class Objective(nn.Module):
    """The loss as a module's forward, which is what DDP follows."""

    def __init__(self, model: Decoder, loss: Callable):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x_BT: Tensor, y_BT: Tensor) -> Tensor:
        return self.loss(x_BT, y_BT)


def spread(model: Decoder, config: TrainCommand, ranks: Ranks, compiled: bool) -> Callable:
    """What computes the loss of a process's share of a batch; its gradient is that of the whole batch.

    Weights are shared out by FSDP, so an optimizer is made afterwards. Raises Misuse for weights that it cannot share.
    """
    if compiled:
        torch.compiler.reset()  # a sweep's earlier runs count: after eight graphs of `loss` PyTorch compiles no more
    if ranks.place.size > 1 and config.trainer.strategy is Strategy.fsdp:
        return shard(model, compiled)
    loss = torch.compile(model.loss) if compiled else model.loss
    if ranks.place.size == 1:
        return loss
    # Its optimizer cuts the graph in pieces, and cannot where attention is FlexAttention.
    torch._dynamo.config.optimize_ddp = False
    return nn.parallel.DistributedDataParallel(Objective(model, loss), find_unused_parameters=rests(config))


def shard(model: Decoder, compiled: bool) -> Callable:
    """Each block by itself, and then what is outside of them."""
    from torch.distributed.fsdp import fully_shard

    for name, weight in model.named_parameters():
        if weight.ndim == 0:
            raise Misuse(f"trainer.strategy=fsdp cannot share out {name}, a single number: use trainer.strategy=ddp")
    # the device's own, not that of whatever accelerator the machine has
    mesh = dist.init_device_mesh(model.embedding.weight.device.type, (dist.get_world_size(),))
    for block in model.blocks:
        if compiled:
            block.forward = compiled_in_training(block)
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model.loss


def compiled_in_training(block: nn.Module) -> Callable:
    """Its forward without what FSDP does before and after. The shapes of evaluation are not worth the time."""
    eager = block.forward
    fast = torch.compile(eager)

    def forward(*inputs: Any, **options: Any) -> Tensor:
        return (fast if block.training else eager)(*inputs, **options)

    return forward


def rests(config: TrainCommand) -> bool:
    """Whether some weight gets no gradient in some step, as those of a scheme that is dropped before the end."""
    model = build_model(config, 2).train()
    if not any(True for _ in model.scheme.parameters()):
        return False
    tokens_BT = torch.zeros(1, 2, dtype=torch.long)
    missing = False
    for share in (0.0, 1.0):
        model.scheme.progress(share)
        loss = model.loss(tokens_BT, tokens_BT)
        missing |= None in torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return missing


def exchanging(compute_loss: Callable, last: bool) -> AbstractContextManager:
    """Around the loss of a piece of a step: DDP exchanges gradients once, in the backward pass of the last piece. (FSDP
    does with each, or every process would have to hold all of the gradient.)"""
    if isinstance(compute_loss, nn.parallel.DistributedDataParallel) and not last:
        return compute_loss.no_sync()
    return nullcontext()
