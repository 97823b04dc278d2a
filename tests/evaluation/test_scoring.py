"""The scores of spans, also where a batch does not fit into memory."""

import pytest
import torch
from support.counter import CPU, ROPE, decoder
from support.spans import planned, text, token_losses

from posexp.config.sections import Precision
from posexp.evaluation.scoring import Scorer


def test_a_hit_is_a_target_that_was_the_likeliest():
    tokens = text(200)
    model = decoder(ROPE)
    (row,) = planned(tokens, "nonoverlapping", [16])
    scores = Scorer(model, 4096, CPU, Precision.float32)(tokens.ids, row.windows)
    with torch.no_grad():
        logits = model.eval().logits(model(torch.from_numpy(tokens.ids[None, :16])))[0]
    assert scores.hit[:16].tolist() == (logits.argmax(-1).numpy() == tokens.ids[1:17]).tolist()


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
