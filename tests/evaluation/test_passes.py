"""Shared work: losses are those of every window by itself, and less is read."""

import numpy as np
import pytest
import torch
from support.counter import CPU, ROPE, decoder
from support.spans import planned, text

from posexp.config.sections import Precision
from posexp.evaluation.scoring import Scorer, Scores, token_losses
from posexp.evaluation.shared_passes import Passes

ALL = ("same_targets", "nonoverlapping", "sliding", "last_k", "overlapping", "truncated", "document_heads")
LENGTHS = [8, 16, 32, 64]


def shared(model, tokens, measurements, stable: bool) -> tuple[Passes, list[Scores]]:
    scorer = Scorer(model, 4096, CPU, Precision.float32)
    passes = Passes(lambda reads: scorer(tokens.ids, reads), [row.windows for row in measurements], stable)
    return passes, [passes(row.windows) for row in measurements]


@pytest.mark.parametrize("stable", [True, False])
def test_shared_losses_are_those_of_each_row_alone(stable):
    model, tokens = decoder(ROPE), text(300, 120, 200)
    rows = [row for name in ALL for row in reversed(planned(tokens, name, LENGTHS, stride=4, targets=100))]
    passes, found = shared(model, tokens, rows, stable)
    for row, scores in zip(rows, found, strict=True):
        alone = token_losses(model, tokens.ids, row.windows, 4096, CPU, Precision.float32)
        assert scores.nll == pytest.approx(alone, abs=2e-5)
        assert len(scores.hit) == len(scores.nll)
    assert passes.asked == sum((row.windows[:, 2] - 1 - row.windows[:, 0]).sum() for row in rows)
    assert passes.read < passes.asked / (2 if stable else 1.3), "some rows have the very same windows"


def test_a_hit_is_a_target_that_was_the_likeliest():
    tokens = text(200)
    model = decoder(ROPE)
    (row,) = planned(tokens, "nonoverlapping", [16])
    _, (scores,) = shared(model, tokens, [row], True)
    with torch.no_grad():
        logits = model.eval().logits(model(torch.from_numpy(tokens.ids[None, :16])))[0]
    assert scores.hit[:16].tolist() == (logits.argmax(-1).numpy() == tokens.ids[1:17]).tolist()


def test_sliding_windows_of_all_lengths_are_read_in_one_pass():
    tokens = text(400)
    rows = list(reversed(planned(tokens, "sliding", LENGTHS, stride=8)))
    passes, _ = shared(decoder(ROPE), tokens, rows, True)
    starts = {start for row in rows for start in row.windows[:, 0].tolist()}
    longest = rows[0].windows
    assert passes.read < (longest[:, 2] - longest[:, 0]).sum() + 64 * (len(starts) - len(longest)) + 1
    assert passes.asked > 1.6 * passes.read


def test_what_overflows_in_a_long_input_is_read_again_in_a_short_one():
    tokens = text(200)
    rows = list(reversed(planned(tokens, "truncated", [8, 64])))

    def score(reads):
        return [
            Scores(
                np.full(len(r.targets), np.nan if r.inputs > 40 else 2.0, np.float32), np.zeros(len(r.targets), bool)
            )
            for r in reads
        ]

    passes = Passes(score, [row.windows for row in rows], stable=True)
    long, short = (passes(row.windows) for row in rows)
    assert np.isnan(long.nll).all() and (short.nll == 2).all()


class Small(torch.nn.Module):
    """Runs out of memory with more than two windows at a time."""

    def __init__(self, model):
        super().__init__()
        self.model, self.tried = model, []

    def forward(self, tokens_BT, last=None):
        self.tried.append(len(tokens_BT))
        if len(tokens_BT) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return self.model(tokens_BT, last)

    def logits(self, hidden):
        return self.model.logits(hidden)


def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same():
    model, tokens = decoder(ROPE), text(300)
    (row,) = planned(tokens, "nonoverlapping", [16])
    small = Small(model)
    got = token_losses(small, tokens.ids, row.windows[:11], 4096, CPU, Precision.float32)
    wanted = token_losses(model, tokens.ids, row.windows[:11], 4096, CPU, Precision.float32)
    assert got == pytest.approx(wanted, abs=2e-5)
    assert small.tried[:3] == [11, 5, 2] and sum(B for B in small.tried if B <= 2) == 11


def test_what_does_not_fit_alone_is_told():
    model, tokens = decoder(ROPE), text(300)
    (row,) = planned(tokens, "nonoverlapping", [16])
    with pytest.raises(MemoryError):
        token_losses(Never(model), tokens.ids, row.windows, 4096, CPU, Precision.float32)


class Never(Small):
    def forward(self, tokens_BT, last=None):
        raise MemoryError
