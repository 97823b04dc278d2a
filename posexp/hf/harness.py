"""A run of posexp as a model of lm-evaluation-harness. Requires posexp[lm-eval]; docs/recipes/lm-eval.md.

Shape suffixes: B batch, T tokens, D width of the residual stream, V vocabulary, W spans.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from posexp.config.sections import Device, Precision
from posexp.data.tokenizer import load_tokenizer
from posexp.errors import Misuse
from posexp.evaluation.scoring import Scorer
from posexp.model import cpu
from posexp.model.device import autocast, choose_device, choose_precision
from posexp.runs.experiment import Experiment
from posexp.runs.load import finished_runs

BATCH_TOKENS = 16384  # inputs of a batch, as eval.batch_tokens
MAX_NEW = 256  # tokens that are generated, unless the task says otherwise
PREFIX = "\n"  # stands before a text, for runs whose documents do not end with a token of their own

Pair = tuple[list[int], list[int]]  # tokens of a context, which are not scored, and of what follows


class Harness(TemplateLM):
    """The trained model of a run folder, which reads at most `length` tokens, by default the training length.

    `trust` lets the run name code from outside posexp. Other arguments of the harness, as batch_size, have no effect.
    Raises Misuse if the run is not finished, RunFailed if its files are damaged.
    """

    def __init__(
        self, run: str, length: int | None = None, trust: bool = False, device: str | None = None, **ignored: Any
    ):
        super().__init__()
        folder = Path(run).expanduser().absolute()
        (found,) = finished_runs(str(folder.parent.parent), folder.parent.name, folder.name)
        if device == "cuda:0" and not torch.cuda.is_available():
            device = None  # the harness names it if nobody did
        if (name := (device or "auto").partition(":")[0]) not in Device.__members__:
            raise Misuse(f"device={device} must be one of {', '.join(Device.__members__)}")
        cpu.prepare()
        self._device = choose_device(Device[name])
        experiment = Experiment(found, self._device, trust=trust)
        self.model, self.length = experiment.model, int(length or experiment.config.train.length)
        self.precision = choose_precision(Precision.auto, self._device)
        self.encoder = load_tokenizer(found.folder / "tokenizer.json")
        end = experiment.config.data.document_end
        self.prefix = self.tok_encode(PREFIX)[0] if end is None else end

    @property
    def eot_token_id(self) -> int:
        """The token before a text without context: that which ends documents, or else a line end."""
        return self.prefix

    @property
    def tokenizer_name(self) -> str:
        return "posexp"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **ignored: Any) -> list[int]:
        ids: list[int] = self.encoder.encode(string, add_special_tokens=False).ids
        return ids

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **ignored: Any
    ) -> list[tuple[float, bool]]:
        found = self.scores([(context, text) for _, context, text in requests])
        for (asked, _, _), answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", asked, answer)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each text, in windows of `length` tokens, as the protocol `rolling` does."""
        pairs: list[Pair] = []
        counts = []
        for request in requests:
            ids = self.tok_encode(request.args[0])
            parts = [*map(make_disjoint_window, get_rolling_token_windows(ids, self.prefix, self.length, 1))]
            pairs += parts
            counts.append(len(parts))
        sums = [value for value, _ in self.scores(pairs)]
        bounds = [0, *accumulate(counts)]
        return [sum(sums[first:stop]) for first, stop in pairwise(bounds)]

    def scores(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Return (log-likelihood of the second part, whether greedy decoding writes it) of each pair, cropped."""
        ids: list[int] = []
        windows = []
        for context, text in pairs:
            if len(text) > self.length:
                raise Misuse(f"an answer has {len(text)} tokens, more than length={self.length}: raise it")
            read = (context + text)[-self.length - 1 :]
            ids += read
            windows.append((len(ids) - len(read), len(ids) - len(text), len(ids)))
        if not windows:
            return []
        score = Scorer(self.model, BATCH_TOKENS, self._device, self.precision)
        found = score(np.array(ids), windows_W3 := np.array(windows))
        stops = np.cumsum(windows_W3[:, 2] - windows_W3[:, 1])
        spans = [slice(*span) for span in pairwise([0, *stops.tolist()])]
        return [(-float(found.nll[span].sum(dtype=np.float64)), bool(found.hit[span].all())) for span in spans]

    @torch.no_grad()
    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return greedy continuations. The whole prefix is read again for every token, at most its last `length`."""
        found = []
        for request in requests:
            context, options = request.args
            if options.get("do_sample") or options.get("temperature"):
                raise Misuse("posexp decodes greedily: set do_sample=false in the task's generation_kwargs")
            until = options.get("until") or []
            ends = [until] if isinstance(until, str) else until
            found.append(self.generate(context, ends, int(options.get("max_gen_toks", MAX_NEW))))
            self.cache_hook.add_partial("generate_until", request.args, found[-1])
        return found

    def generate(self, context: str, ends: Sequence[str], most: int) -> str:
        ids, new, text = self.tok_encode(context) or [self.prefix], list[int](), ""
        while len(new) < most and not any(end in text for end in ends):
            read_1T = torch.tensor([(ids + new)[-self.length :]], device=self._device)
            with autocast(self.precision, self._device):
                hidden_1TD = self.model(read_1T, 1 if read_1T.shape[1] > 1 else None)
            new.append(int(self.model.logits(hidden_1TD[:, -1]).argmax()))
            text = self.encoder.decode(new, skip_special_tokens=False)
        return text[: min((text.find(end) for end in ends if end in text), default=len(text))]
