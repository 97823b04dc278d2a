"""Training: short sequences, a budget in tokens, the same batches for every scheme.

Shape suffixes: B windows of a batch, T tokens of a window.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from posexp.attention import flex, kernel_path
from posexp.config.commands import EvalCommand, TrainCommand
from posexp.config.fields import check_room
from posexp.config.sections import AttentionPath, Precision, Split
from posexp.data import Store, load
from posexp.data.sampler import Windows
from posexp.errors import Diverged, Misuse, RunFailed, Stopped
from posexp.evaluation.evaluate import evaluate_run
from posexp.evaluation.plan import check_protocols, own_lengths, plan
from posexp.evaluation.scoring import token_losses
from posexp.jobs.signals import signals
from posexp.model import cpu
from posexp.model.decoder import Decoder, build_model
from posexp.model.device import Graphs, autocast, choose_device, choose_precision, describe
from posexp.output.console import say
from posexp.runs import checkpoint, provenance
from posexp.runs.run import Run
from posexp.runs.status import evaluation, preparing, worked_on
from posexp.storage import atomic, checksum, jsonl
from posexp.training import distributed, optim, processes
from posexp.training.distributed import Ranks
from posexp.training.log import Log, NoLog
from posexp.training.outcome import Alone

LOG_EVERY = 10  # steps a training row stands for
AGREEMENT = (
    0.1  # nats by which the losses of training and evaluation may differ on the same text before a run is suspect
)
COMPARED_TOKENS = 16_384  # of fresh training text; as both losses are of the same tokens, there is no sampling noise


@dataclass
class Parts:
    """What the training loop works with."""

    model: Decoder
    windows: Windows
    device: torch.device
    precision: Precision
    ranks: Ranks


def train(config: TrainCommand) -> Run:
    """Trains the run that `config` describes, from where it was left, then evaluates it at its own lengths.

    Raises Misuse before anything is written if the configuration cannot work; Diverged if the loss stops being
    finite; RunFailed if a checkpoint cannot be saved, another process holds the run, or one that trains it dies;
    Stopped on a signal (posexp/jobs/signals.py).
    """
    run = Run.of(config)
    if processes.wanted(config):
        train_below(run, config)
        return run
    with preparing(run):
        device = choose_device(config.device)
    with ExitStack() as held:
        with distributed.joined(config, device) as ranks:
            device = ranks.device(device)
            train_jointly(run, config, ranks, device, held)
        if ranks.first:  # the others are free to end: however long this takes, nobody waits
            with evaluation(run, config):  # whoever trains has run the scheme's code already
                evaluate_run(run, EvalCommand(eval=dict(vars(config.eval)), wandb=config.wandb, trust=True), device)
    return run


def train_jointly(run: Run, config: TrainCommand, ranks: Ranks, device: torch.device, held: ExitStack) -> None:
    """What the processes of a run do together. Its names end with it: what is spread over them must be gone before they
    part (distributed.part)."""
    with ranks.in_turn():  # the first checks and writes
        parts = prepare(run, config, ranks, device, held)
    saved = checkpoint.restore(run.folder / "checkpoint", say)
    step = ranks.same_step(saved["step"] if saved else 0)
    if step < config.train.steps:
        compare_losses(run, config, parts, fit(run, config, parts, saved))
    elif ranks.first:
        say(f"{run.name}: already trained, {step} steps")
        if run.status()["status"] != "done":  # killed between its last checkpoint and this line
            jsonl.append(run.metrics, {"step": step, "status": "done", "time": round(time.time(), 3)})


def train_below(run: Run, config: TrainCommand) -> None:
    """Trains in several processes below this one. Raises what `train` does, and puts down if one of them died."""
    try:
        processes.spawn(train, config)
    except Alone as error:
        if run.metrics.is_file() and not run.locked():
            row = {"step": run.status().get("step", 0), "status": "failed", "time": round(time.time(), 3)}
            jsonl.append(run.metrics, row | {"reason": str(error)})
        raise


def prepare(run: Run, config: TrainCommand, ranks: Ranks, device: torch.device, held: ExitStack) -> Parts:
    """The run's folder with all that is known before its first step, `held` for this process; and the run's parts.

    Raises Misuse before anything is written if the configuration cannot work.
    """
    with preparing(run):
        store, windows = usable(config, device)
    if ranks.first:
        run.create(config)
        held.enter_context(run.lock())
        held.enter_context(worked_on(run))
    begun = (run.folder / "provenance.json").is_file()
    cpu.prepare(run.provenance().get("matmul", cpu.MKL) if begun else None)
    model = build_model(config, store.vocab_size).to(device)
    model.path = config.train.attention
    parts = Parts(model, windows, device, choose_precision(config.train.precision, device), ranks)
    describe_run(run, config, store, parts)
    if ranks.first:
        checkpoint.tidy(run.folder / "checkpoint")
    return parts


def usable(config: TrainCommand, device: torch.device) -> tuple[Store, Windows]:
    """The token store and the training windows of a configuration that can be trained and evaluated.

    Raises Misuse otherwise; nothing but the token store is written.
    """
    check_room("results", Run.of(config).folder)
    check_protocols(config.eval.protocols or [])
    check_parts(config, device)
    store = load(config.data, say)
    windows = Windows(store.split(Split.train), config.train.length, config.data.cross_documents)
    held_out = store.split(config.eval.split)
    plan(held_out, config.eval, own_lengths(held_out, config.train.length, config.eval))  # refuses impossible lengths
    return store, windows


def check_parts(config: TrainCommand, device: torch.device) -> None:
    """Raises Misuse for sizes that the scheme or the window cannot have, and for two that do not go together."""
    model = build_model(config, 2)
    limit = model.scheme.max_length
    if limit is not None and limit < config.train.length:
        raise Misuse(
            f"{model.scheme.fingerprint()} ends at {limit} tokens: train.length={config.train.length} is longer"
        )
    kernel_path(model.scheme, model.scheme.dims, model.window, config.train.attention)
    if config.train.attention is AttentionPath.flex:
        flex.check_gradient(device)


def fit(run: Run, config: TrainCommand, parts: Parts, saved: dict[str, Any] | None) -> Callable:
    """The training loop, from the checkpoint that was saved; returns what computed the loss.

    A batch is a function of (seed, step), and so is every random draw within a step: a resumed run takes the same path,
    bit for bit on a CPU.
    """
    model, ranks, steps = parts.model, parts.ranks, config.train.steps
    compute_loss = distributed.spread(model, config, ranks, parts.device.type == "cuda" and config.train.compile)
    optimizer = optim.build(model, config.train)
    if saved is not None:
        checkpoint.apply(saved["tensors"], model, optimizer)
    first_step = saved["step"] if saved else 0
    model.train()
    with Log(run, config, first_step) if ranks.first else NoLog() as log, signals() as stop:
        about = {"device": describe(parts.device), "precision": parts.precision.value}
        log.status("running", first_step, **about, processes=ranks.place.size)
        log.note(f"training from step {first_step} to {steps}, {model.parameter_counts()['total']:,} parameters")
        total, counted = torch.zeros((), device=parts.device), 0
        graphs = Graphs(first_step)
        for step in range(first_step, steps):
            for group in optimizer.param_groups:
                group["lr"] = optim.learning_rate(step, config.train)
            model.scheme.progress(step / steps)
            torch.manual_seed(ranks.seed(config.seed * 1_000_003 + step))
            for piece, (x_BT, y_BT) in enumerate(micro_batches(config, parts, step), start=1):
                last = piece == config.train.accumulate
                with autocast(parts.precision, parts.device), distributed.exchanging(compute_loss, last):
                    loss = compute_loss(x_BT, y_BT) / config.train.accumulate
                loss.backward()
                total += loss.detach()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip or math.inf)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            counted += 1
            done = step + 1
            signum = ranks.agreed(stop)
            save = done % config.train.checkpoint_every == 0 or done == steps or signum > 0
            if done % LOG_EVERY == 0 or save:
                norm, total = checkpoint.full(norm), ranks.mean(total)
                mean = total.item() / counted
                if not torch.isfinite(total + norm):
                    reason = f"the loss is no longer finite at step {done} (last mean {mean:g})"
                    log.status("failed", done, reason=reason, diverged=True)
                    raise Diverged(f"{run.name}: {reason}; try a lower train.lr")
                log.train(done, mean, optimizer.param_groups[0]["lr"], norm.item())
                if again := graphs.made_again(done):
                    log.note(again)
                total.zero_()
                counted = 0
            if save:
                save_checkpoint(run, log, parts, optimizer, done)
            if signum and done < steps:
                log.status("stopped", done, reason=signal.Signals(signum).name)
                raise Stopped(f"{run.name}: stopped at step {done} and saved; the same command goes on", signum)
        model.scheme.progress(1.0)
        log.status("done", steps)
    return compute_loss


def micro_batches(config: TrainCommand, parts: Parts, step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """This process's share of the batch of `step`, in `accumulate` equal pieces, on the device."""
    count = config.train.batch_tokens // config.train.length
    x_BT, y_BT = parts.windows.batch(config.seed, step, count)
    size = count // config.train.accumulate
    if parts.device.type == "cuda":  # only pinned memory is copied while the GPU computes
        x_BT, y_BT = x_BT.pin_memory(), y_BT.pin_memory()
    for x, y in zip(x_BT.split(size), y_BT.split(size), strict=True):
        x, y = parts.ranks.share(x), parts.ranks.share(y)
        yield x.to(parts.device, non_blocking=True), y.to(parts.device, non_blocking=True)


def save_checkpoint(run: Run, log: Log | NoLog, parts: Parts, optimizer: torch.optim.Optimizer, step: int) -> None:
    try:
        checkpoint.save(run.folder / "checkpoint", step, parts.model, optimizer, parts.ranks.first)
    except RunFailed as error:
        with suppress(OSError):  # the disk may be full for this too
            log.status("failed", step, reason=str(error))
        raise


def compare_losses(run: Run, config: TrainCommand, parts: Parts, compute_loss: Callable) -> None:
    """Scores the same fresh training text twice: with the loss of training, and the way evaluation does. If the two
    differ, one of them is wrong (chuanyang-Zheng/DAPE, issue 2, is such a case). Dropout makes them differ by itself.
    """
    if config.model.dropout:
        return
    count = config.train.batch_tokens // config.train.length
    steps = config.train.steps + np.arange(-(-COMPARED_TOKENS // config.train.batch_tokens))  # training never saw them
    total = torch.zeros((), device=parts.device)
    torch.manual_seed(parts.ranks.seed(config.seed))
    parts.model.train()
    for step in steps.tolist():
        for x_BT, y_BT in micro_batches(config, parts, step):
            with autocast(parts.precision, parts.device):
                total += compute_loss(x_BT, y_BT).detach() / config.train.accumulate
    trained = parts.ranks.mean(total).item() / len(steps)
    start_B = np.concatenate([parts.windows.starts(config.seed, step, count) for step in steps.tolist()])
    window_B3 = np.stack((start_B, start_B + 1, start_B + config.train.length + 1), axis=1)
    losses = token_losses(
        parts.model, parts.windows.ids_N, window_B3, config.eval.batch_tokens, parts.device, parts.precision
    )
    evaluated = float(losses.mean())
    agrees = abs(evaluated - trained) <= AGREEMENT
    if not parts.ranks.first:
        return
    jsonl.append(
        run.metrics,
        {
            "step": config.train.steps,
            "check": "evaluation agrees with training",
            "training_loss": trained if np.isfinite(trained) else None,
            "evaluation_loss": evaluated if np.isfinite(evaluated) else None,
            "agrees": agrees,
        },
    )
    if not agrees:
        say(
            f"{run.name}: the same text has a loss of {evaluated:.3f} in evaluation and of {trained:.3f} in training: "
            "distrust this run"
        )


def describe_run(run: Run, config: TrainCommand, store: Store, parts: Parts) -> None:
    """Writes provenance.json once. Raises RunFailed if the run was trained on other tokens than there are now."""
    path = run.folder / "provenance.json"
    if path.is_file():
        run.check_store(store)
        return
    about = {
        **provenance.environment(),
        "created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "device": describe(parts.device),
        "matmul": cpu.matmul(),
        "kernel_path": kernel_path(
            parts.model.scheme, parts.model.scheme.dims, parts.model.window, parts.model.path, parts.device
        ),
        "scheme": parts.model.scheme.fingerprint(),
        "window": parts.model.window.fingerprint(),
        "parameters": parts.model.parameter_counts(),
        "store": store.key,
        "tokenizer_sha256": atomic.sha256(store.tokenizer_path),
        "train_sha256": store.split(Split.train).sha256,
        "documents": parts.windows.used_documents,
        "documents_left_out": parts.windows.left_out,
    }
    atomic.write(run.folder / "tokenizer.json", store.tokenizer_path.read_text())
    atomic.write(path, json.dumps(checksum.seal(about), indent=1))  # last: it says that both are there
