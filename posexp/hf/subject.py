"""A checkpoint that transformers loads, as a subject of an evaluation.

<results>/<group>/hf-<name>-<digest>/
    checkpoint.json   source, hashes of weights, config and tokenizer, sizes, training length
    rows.jsonl        rows as of every run
    losses/           token losses
"""

import hashlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from posexp.config.commands import EvalCommand
from posexp.config.fields import check_room
from posexp.config.sections import DataConfig, EvalConfig
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.evaluation.interfaces import View
from posexp.evaluation.run_model import judged_length, other_text, text_name
from posexp.evaluation.variants import Variant, variants
from posexp.hf import changes
from posexp.hf.model import CausalLM, load_causal_lm, maxima_of, text_config
from posexp.hf.source import Source, find_source
from posexp.hf.tokens import beginning, tokenizer_file
from posexp.output.console import say
from posexp.runs.run import Run, cannot_write
from posexp.storage import atomic
from posexp.transforms import Transform
from posexp.windows import Window
from posexp.windows.sliding import Sliding


class Checkpoint:
    """A checkpoint with its text. Raises Misuse if it cannot be loaded, or if the text cannot be read in its tokens."""

    def __init__(self, command: EvalCommand, device: torch.device):
        assert command.hf is not None
        source = find_source(command.hf)
        data = command.data or DataConfig()
        tokenizer = tokenizer_file(source, Path(command.cache or data.cache).expanduser(), command.trust)
        loaded = load_causal_lm(source, command.trust)
        text = text_config(loaded.config)
        bos, bos_text, prefix = beginning(source, tokenizer, command.bos, command.trust)
        self.store, self.eval = other_text(command, data, tokenizer, command.eval_config(EvalConfig()))
        self.tokens = replace(self.store.split(self.eval.split), bos=bos, prefix=prefix)
        largest = max(int(self.tokens.ids.max()), bos or 0)
        if largest >= text.vocab_size:
            raise Misuse(
                f"hf={source.given}: its tokenizer yields token {largest}, but its model has a vocabulary of "
                f"{text.vocab_size} tokens: the tokenizer belongs to another model"
            )
        trained = train_length_of(loaded.config, command)
        self.train_length = judged_length(trained, self.eval)
        heads = getattr(text, "num_attention_heads", 1)  # a state-space model has none
        self.dims = Dims(text.hidden_size, heads, text.num_hidden_layers, trained)
        self.windowed = changes.windows_count(loaded)
        self.window = changes.own_window(loaded.config, self.dims, self.windowed)
        self.source, self.plain = source, CausalLM(loaded.to(device))
        self.twins: dict[str, CausalLM] = {}  # by config
        self.tried: set[Transform] = set()  # transforms that passed check_counts
        about = self.describe(tokenizer) | ({"bos": bos_text} if bos_text else {})
        self.run = folder_of(command, source, about)
        self.about = {
            "run": self.run.name,
            "scheme": source.name,
            "seed": 0,
            "train_length": self.train_length,
            "judged_from": self.eval.judged_from,
            "trained_window": self.named(self.window, self.dims.train_length),
            "weights": source.sha256[:12],
            "bos": bos_text,
            "corpus": "" if command.data is None else text_name(self.store, self.eval.split),
            "origin": "checkpoint",
        }

    def describe(self, tokenizer: Path) -> dict[str, Any]:
        """Return the content of checkpoint.json."""
        loaded, source = self.plain.model, self.source
        return {
            "name": source.name,
            "source": source.given,
            "commit": source.commit,
            "sha256": source.sha256,
            "config_sha256": source.config_sha256,
            "tokenizer_sha256": atomic.sha256(tokenizer),
            "class": type(loaded).__name__,
            "parameters": sum(weight.numel() for weight in loaded.parameters()),
            "vocab_size": text_config(loaded.config).vocab_size,
            "d_model": self.dims.d_model,
            "n_head": self.dims.n_head,
            "n_layer": self.dims.n_layer,
            "train_length": self.dims.train_length,
            "max_length": self.plain.max_length,
            "window": self.named(self.window, self.dims.train_length),
            "packages": {name: version(name) for name in ("posexp", "transformers", "torch")},
        }

    def variants(self, command: EvalCommand) -> list[Variant]:
        """Return the variants as for runs. Raises Misuse also for a window that the config cannot express."""
        found = variants(self.dims, self.window, command.window, command.transform)
        seen = found[0].window
        if seen is not self.window and seen.fingerprint() != self.window.fingerprint():
            if not self.windowed:
                kind = type(self.plain.model).__name__
                raise Misuse(f"hf={self.source.given}: {kind} has no other window than {self.window.fingerprint()!r}")
            if not seen.full and seen.size is None:
                raise Misuse(
                    f"hf={self.source.given}: transformers has no window {seen.fingerprint()!r}; choose full or sliding"
                )
        return found

    def view(self, variant: Variant, length: int) -> View:
        config = self.plain.model.config
        if variant.window.fingerprint() != self.window.fingerprint():
            config = changes.with_window(config, variant.window.size)
        if variant.transform is not None:
            config = changes.with_frequencies(config, variant.transform, length, self.dims)
            if variant.transform not in self.tried:
                changes.check_counts(self.plain.model, variant.transform, self.dims)
                self.tried.add(variant.transform)
        seen = self.plain if config is self.plain.model.config else self.twin(config)
        return View(
            model=seen,
            max_length=seen.max_length,
            kernel_path=f"transformers {config._attn_implementation}",
            window=self.named(variant.window, length),
            settings=variant.settings(length),
        )

    def named(self, window: Window, length: int) -> str:
        """Return the name of a window in rows: "full" for one that exceeds `length` and the training length."""
        if isinstance(window, changes.OwnWindow) and window.tokens >= max(length, self.dims.train_length):
            return "full"
        return window.fingerprint()

    def twin(self, config: Any) -> CausalLM:
        """Return the model with another config. Raises NotApplicable if transformers rejects the config."""
        key = json.dumps(config.to_dict(), sort_keys=True, default=str)
        if key not in self.twins:
            self.twins[key] = changes.trying(
                self.plain.model, lambda: CausalLM(changes.rebuilt(self.plain.model, config))
            )
        return self.twins[key]

    def notes(self) -> list[str]:
        return []

    def cut(self, variant: Variant) -> Variant | None:
        """Return the variant with a sliding window of the training length; None if it has or can have none."""
        if not self.windowed or self.named(variant.window, self.dims.train_length) != "full":
            return None
        return Variant(variant.name, variant.transform, Sliding(self.dims, self.train_length))


def train_length_of(config: Any, command: EvalCommand) -> int:
    """Return the training length in tokens: the option, else that of the config before frequencies were rescaled.

    Without both, it is the shortest requested length, which is logged. Raises Misuse if no length is requested.
    """
    if command.train_length is not None:
        return command.train_length
    text = text_config(config)
    rescaled = getattr(text, "rope_parameters", None) or {}
    # Phi-3 also has a top-level attribute of this name, whose default is meaningless without rescaling.
    for length in (rescaled.get("original_max_position_embeddings"), *maxima_of(config)):
        if isinstance(length, int):
            return length
    if not command.eval.get("lengths"):
        raise Misuse(f"hf={command.hf}: its config does not state the training length: set train_length=<tokens>")
    shortest: int = min(command.eval["lengths"])
    say(f"hf={command.hf}: its config does not state the training length, {shortest} is assumed: set train_length=…")
    return shortest


def folder_of(command: EvalCommand, source: Source, about: dict[str, Any]) -> Run:
    """Create the folder of a checkpoint's rows, another one for another config, tokens, training length or BOS."""
    identity = [about[key] for key in ("sha256", "config_sha256", "tokenizer_sha256", "train_length")]
    identity += [about["bos"]] if "bos" in about else []  # without BOS, digests equal those of older versions
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    run = Run(Path(command.results).expanduser() / command.group / f"hf-{source.name}-{digest}")
    check_room("results", run.folder)
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        run.refuse_links()
        if not run.checkpoint.is_file():
            atomic.write_file(run.checkpoint, json.dumps(about, indent=1) + "\n")
    except OSError as error:
        raise cannot_write(run.folder, error) from error
    return run
