"""One model, many numbers: what six published ways of measuring say of models whose loss is known.

Three models of loss by context c, trained at 512: one uses all context, one nothing past 512, one breaks past 512.
Two layers stand between them and the numbers: which targets with which context (protocols), and means over them.
"""

import functools

import numpy as np
import pytest
import torch
from support.counter import CPU, Counter
from support.spans import planned, text

from posexp.config.sections import Precision
from posexp.evaluation.scoring import Scorer
from posexp.evaluation.statistics import summarize
from posexp.evaluation.targets import documents_of, targets_of


def uses_all(context):
    return 3 + 3 * context**-0.45


def window_512(context):
    return uses_all(context.clamp(max=512))


def breaks(context):
    return uses_all(context) + 2.1 * ((context - 512) / 512).clamp(min=0)


@functools.cache
def measured(model, protocol: str, length: int) -> float:
    """Perplexity of one row, the way posexp eval makes it; stride 256."""
    tokens = text(*[8000] * 10)
    (row,) = planned(tokens, protocol, [length], stride=256)
    scorer = Scorer(Counter(model), 1 << 16, CPU, Precision.float32)
    scores = scorer(tokens.ids, row.windows)
    target_N, _ = targets_of(row.windows)
    return summarize(scores.nll, documents_of(tokens, target_N), None, row.weights()).ppl


PROTOCOLS = ("nonoverlapping", "sliding", "window_means", "truncated", "overlapping", "last_k")
# Perplexities by model and length, in the order of PROTOCOLS.
TABLE = {
    (window_512, 512): (27.72, 24.75, 24.79, 27.71, 27.71, 24.75),
    (window_512, 4096): (24.50, 24.08, 24.08, 24.50, 24.50, 24.07),
    (uses_all, 512): (27.72, 24.75, 24.79, 27.7, 27.7, 24.75),
    (uses_all, 4096): (22.84, 21.61, 21.61, 22.8, 22.8, 21.6),
    (breaks, 1024): (43, 112, 110, 43, 43, 112),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", [window_512, uses_all, breaks])
def test_the_same_model_gets_these_numbers(model):
    for (of, length), row in TABLE.items():
        if of is model:
            for protocol, ppl in zip(PROTOCOLS, row, strict=True):
                assert measured(model, protocol, length) == pytest.approx(
                    ppl, rel=0.02 if model is breaks else 0.004
                ), f"{protocol} at {length}"


@pytest.mark.parametrize("model", [window_512, uses_all, breaks])
@pytest.mark.parametrize("length", [512, 1024, 4096])
def test_the_other_ways_of_measuring_get_the_mean_over_their_contexts(model, length):
    loss = model(torch.arange(1, 4097, dtype=torch.float64)).numpy()[:length]
    whole, last, own = (loss[-scored:].mean() for scored in (length, 256, min(128, length // 16)))
    of_document = np.concatenate([loss] * (7999 // length) + [loss[: 7999 % length]]).mean()
    for protocol, nll in (
        ("fixed_windows", whole),
        ("document_heads", whole),
        ("per_document", of_document),
        ("same_targets", own),
    ):
        assert measured(model, protocol, length) == pytest.approx(np.exp(nll), rel=1e-5), protocol
    assert measured(model, "sliding_late", length) == pytest.approx(np.exp(last), rel=2e-3), "the last window is short"


@pytest.mark.parametrize("model", [window_512, uses_all, breaks])
def test_by_position_the_model_is_seen_as_it_is(model):
    tokens = text(2 * 4096 + 1)
    loss = model(torch.arange(1, 4097, dtype=torch.float64)).numpy()
    scorer = Scorer(Counter(model), 1 << 16, CPU, Precision.float32)
    rows = planned(tokens, "per_position", [4096])
    nll_N = scorer(tokens.ids, rows[0].windows).nll
    for row in rows:
        low, high = row.within
        assert high == row.length
        assert nll_N[row.chosen].mean(dtype=float) == pytest.approx(loss[low:high].mean(), rel=1e-5)


def change(model, protocol: str, length: int) -> float:
    return measured(model, protocol, length) / measured(model, protocol, 512) - 1


def test_whole_windows_make_ignoring_context_look_like_using_it():
    for protocol in ("nonoverlapping", "truncated", "overlapping"):
        assert change(window_512, protocol, 4096) < -0.11
    for protocol in ("sliding", "last_k", "sliding_late"):
        assert -0.03 < change(window_512, protocol, 4096) < 0
    assert abs(change(window_512, "same_targets", 4096)) < 0.03


def test_the_same_breakage_is_half_as_bad_again_or_four_times():
    assert change(breaks, "nonoverlapping", 1024) == pytest.approx(0.55, abs=0.05)
    assert change(breaks, "sliding", 1024) == pytest.approx(3.5, abs=0.1)
    last = float(torch.exp(breaks(torch.tensor(1024.0, dtype=torch.float64))))
    assert last == pytest.approx(187, rel=0.005), "of the last token of a window of 1024"


def test_windows_that_score_a_sixteenth_of_themselves_show_that_nothing_past_512_is_used():
    """The rest of the change above is that of targets with less than 512 tokens of context, at length 512."""
    tokens = text(*[8000] * 10)
    rows = planned(tokens, "same_targets", [512, 4096])
    near, far = (uses_all(torch.from_numpy(targets_of(row.windows)[1]).clamp(max=512).double()).mean() for row in rows)
    assert 0 < near - far < 3e-3
    assert np.array_equal(*(targets_of(row.windows)[0] for row in rows))
