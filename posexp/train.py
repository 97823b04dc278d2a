"""Training: short sequences, a budget in tokens, the same batches for every scheme.

Shape suffixes: B windows of a batch, T tokens of a window.
"""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from posexp import checkpoint, jsonl, machine, optim, runs, whole
from posexp.attention import flex, kernel_path
from posexp.cells import evaluation, preparing, worked_on
from posexp.commands import EvalCommand, TrainCommand
from posexp.config import AttentionPath, Precision, Split
from posexp.data import Store, load
from posexp.data.batch import Windows
from posexp.device import Graphs, autocast, choose_device, choose_precision, describe
from posexp.errors import Misuse, RunFailed, Stopped
from posexp.evaluation.evaluate import evaluate_run
from posexp.evaluation.plan import check_protocols, own_lengths, plan
from posexp.evaluation.scoring import token_losses
from posexp.log import Log, say
from posexp.model import Decoder, build_model
from posexp.runs import Run
from posexp.stopping import signals

LOG_EVERY = 10  # steps a training row stands for
# Training and evaluation loss may differ this much, in nats, before a run is told to be suspect. The training
# side is a mean over the last rows (5 % of them, or 5), in which the weights still moved.
AGREEMENT = 0.1
COMPARED_TOKENS = 16_384  # of fresh training text: some thousandths of a nat of noise


@dataclass
class Parts:
    """What the training loop works with."""

    model: Decoder
    optimizer: torch.optim.Optimizer
    windows: Windows
    device: torch.device
    precision: Precision


def train(config: TrainCommand) -> Run:
    """Trains the run that `config` describes, from where it was left, then evaluates it at its own lengths.

    Raises Misuse before anything is written if the configuration cannot work; RunFailed if the loss stops
    being finite, a checkpoint cannot be saved, or another process holds the run; Stopped on SIGTERM or SIGINT.
    """
    run = Run.of(config)
    with preparing(run):
        device = choose_device(config.device)
        store, windows = usable(config, device)
    run.create(config)
    with run.lock(), worked_on(run):
        begun = (run.folder / "provenance.json").is_file()
        machine.prepare(run.provenance().get("matmul", machine.MKL) if begun else None)
        model = build_model(config, store.vocab_size).to(device)
        model.path = config.train.attention
        precision = choose_precision(config.train.precision, device)
        parts = Parts(model, optim.build(model, config.train), windows, device, precision)
        describe_run(run, config, store, parts)
        saved = checkpoint.restore(run.folder / "checkpoint", say)
        if saved is not None:
            checkpoint.apply(saved["tensors"], parts.model, parts.optimizer)
        step = saved["step"] if saved else 0
        if step < config.train.steps:
            fit(run, config, parts, step)
            compare_losses(run, config, parts)
        else:
            say(f"{run.name}: already trained, {step} steps")
            if run.status()["status"] != "done":  # killed between its last checkpoint and this line
                jsonl.append(run.metrics, {"step": step, "status": "done", "time": round(time.time(), 3)})
        with evaluation(run, config):  # whoever trains has run the scheme's code already
            evaluate_run(run, EvalCommand(eval=config.eval, wandb=config.wandb, trust=True), device)
    return run


def usable(config: TrainCommand, device: torch.device) -> tuple[Store, Windows]:
    """The token store and the training windows of a configuration that can be trained and evaluated.

    Raises Misuse otherwise; nothing but the token store is written.
    """
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


def fit(run: Run, config: TrainCommand, parts: Parts, first_step: int) -> None:
    """The training loop. A batch is a function of (seed, step), and so is every random draw within a step:
    a resumed run takes the same path, bit for bit on a CPU."""
    model, optimizer, steps = parts.model, parts.optimizer, config.train.steps
    compute_loss: Callable = model.loss
    if parts.device.type == "cuda" and config.train.compile:
        compute_loss = torch.compile(model.loss)
    model.train()
    with Log(run, config, first_step) as log, signals() as stop:
        log.status("running", first_step, device=describe(parts.device), precision=parts.precision.value)
        log.note(f"training from step {first_step} to {steps}, {model.parameter_counts()['total']:,} parameters")
        total, counted = torch.zeros((), device=parts.device), 0
        graphs = Graphs(first_step)
        for step in range(first_step, steps):
            for group in optimizer.param_groups:
                group["lr"] = optim.learning_rate(step, config.train)
            model.scheme.progress(step / steps)
            torch.manual_seed(config.seed * 1_000_003 + step)
            for x_BT, y_BT in micro_batches(config, parts, step):
                with autocast(parts.precision, parts.device):
                    loss = compute_loss(x_BT, y_BT) / config.train.accumulate
                loss.backward()
                total += loss.detach()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            counted += 1
            done = step + 1
            save = done % config.train.checkpoint_every == 0 or done == steps or bool(stop)
            if done % LOG_EVERY == 0 or save:
                mean = total.item() / counted
                if not torch.isfinite(total + norm):
                    reason = f"the loss is no longer finite at step {done} (last mean {mean:g})"
                    log.status("failed", done, reason=reason)
                    raise RunFailed(f"{run.name}: {reason}; try a lower train.lr")
                log.train(done, mean, optimizer.param_groups[0]["lr"], norm.item())
                if again := graphs.made_again(done):
                    log.note(again)
                total.zero_()
                counted = 0
            if save:
                save_checkpoint(run, log, parts, done)
            if stop and done < steps:
                log.status("stopped", done, reason=signal.Signals(stop[0]).name)
                raise Stopped(f"{run.name}: stopped at step {done} and saved; the same command goes on", stop[0])
        model.scheme.progress(1.0)
        log.status("done", steps)


def micro_batches(config: TrainCommand, parts: Parts, step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batch of `step` in `accumulate` equal pieces, on the device."""
    count = config.train.batch_tokens // config.train.length
    x_BT, y_BT = parts.windows.batch(config.seed, step, count)
    size = count // config.train.accumulate
    if parts.device.type == "cuda":  # only pinned memory is copied while the GPU computes
        x_BT, y_BT = x_BT.pin_memory(), y_BT.pin_memory()
    for x, y in zip(x_BT.split(size), y_BT.split(size), strict=True):
        yield x.to(parts.device, non_blocking=True), y.to(parts.device, non_blocking=True)


def save_checkpoint(run: Run, log: Log, parts: Parts, step: int) -> None:
    try:
        checkpoint.save(run.folder / "checkpoint", step, parts.model, parts.optimizer)
    except RunFailed as error:
        with suppress(OSError):  # the disk may be full for this too
            log.status("failed", step, reason=str(error))
        raise


def compare_losses(run: Run, config: TrainCommand, parts: Parts) -> None:
    """Scores fresh training windows the way evaluation does: a loss far from training's own means that
    one of the two is wrong (chuanyang-Zheng/DAPE, issue 2, is such a case)."""
    rows = [row for row in jsonl.read(run.metrics, say) if "loss" in row]
    tail = rows[-max(5, len(rows) // 20) :]
    trained = sum(row["loss"] for row in tail) / len(tail)
    count = -(-COMPARED_TOKENS // config.train.length)
    start_B = parts.windows.starts(config.seed, config.train.steps, count)  # a step that training never came to
    window_B3 = np.stack((start_B, start_B + 1, start_B + config.train.length + 1), axis=1)
    losses = token_losses(
        parts.model, parts.windows.ids_N, window_B3, config.eval.batch_tokens, parts.device, parts.precision
    )
    evaluated = float(losses.mean())
    agrees = abs(evaluated - trained) <= AGREEMENT
    jsonl.append(
        run.metrics,
        {
            "step": config.train.steps,
            "check": "evaluation agrees with training",
            "training_loss": trained,
            "evaluation_loss": evaluated,
            "agrees": agrees,
        },
    )
    if not agrees:
        say(
            f"{run.name}: the loss on training text is {evaluated:.3f} in evaluation but {trained:.3f} in training; "
            "a short run, dropout or too few batch tokens explain that, otherwise distrust this run"
        )


def describe_run(run: Run, config: TrainCommand, store: Store, parts: Parts) -> None:
    """Writes provenance.json once. Raises RunFailed if the run was trained on other tokens than there are now."""
    path = run.folder / "provenance.json"
    if path.is_file():
        run.check_store(store.key)
        return
    about = {
        **runs.environment(),
        "created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "device": describe(parts.device),
        "matmul": machine.matmul(),
        "kernel_path": kernel_path(parts.model.scheme, parts.model.scheme.dims, parts.model.window, parts.model.path),
        "scheme": parts.model.scheme.fingerprint(),
        "window": parts.model.window.fingerprint(),
        "parameters": parts.model.parameter_counts(),
        "store": store.key,
        "train_sha256": store.split(Split.train).sha256,
        "documents": parts.windows.used_documents,
        "documents_left_out": parts.windows.left_out,
    }
    whole.write(path, json.dumps(about, indent=1))
    whole.write(run.folder / "tokenizer.json", store.tokenizer_path.read_text())
