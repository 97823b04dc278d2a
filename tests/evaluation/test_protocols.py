"""Every protocol's exact targets, and how much text before each the model sees."""

from dataclasses import replace

import numpy as np
import pytest
from support.spans import V, listed, planned, text

from posexp.config.sections import EvalConfig
from posexp.data import Tokens
from posexp.errors import Misuse
from posexp.evaluation.plan import PROTOCOLS, STRIDE, announcement, own_lengths, plan, shuffled_beyond
from posexp.evaluation.spans import (
    FRAME,
    MIN_DOCUMENTS,
    MIN_STRETCHES,
    MIN_TARGETS,
    MOST_REACH,
    MOST_SCORED,
    blocks,
    reach,
    scored,
    share_out,
    stream_reach,
)
from posexp.evaluation.targets import targets_hash, targets_of

# in test_probes.py and test_tasks.py
BEYOND = {"key_tokens", "induction", "induction_absent", "repeats", "exact_match", "by_index", "by_distance"}
BEYOND |= {"copyable", "copyable_absent"}


def hash_of(tokens: Tokens, row) -> str:
    return targets_hash(row.tokens or tokens, targets_of(row.windows)[0], row.by)


def test_same_targets_on_a_hand_made_case():
    # Documents [0, 5), [5, 45), [45, 80). Before a target stand at least 32 tokens: 37 … 44 and 77 … 79, two at a time.
    short, middle, long = planned(text(5, 40, 35), "same_targets", [32, 3, 16])
    firsts = [37, 39, 41, 43, 77]
    assert listed(long) == [[(t, 31), (t + 1, 32)] for t in firsts]
    assert listed(middle) == [[(t, 16)] for first in firsts for t in (first, first + 1)]
    assert listed(short) == [[(t, 3)] for first in firsts for t in (first, first + 1)]
    assert (short.length, middle.length, long.length, long.stride) == (3, 16, 32, None)


@pytest.mark.parametrize("length", [1, 3, 16, 31, 32, 100, 128, 512, 1000, 2048, 8192, 32768])
def test_every_target_has_nearly_as_much_context_as_its_length_says(length):
    (row,) = planned(text(*[40_000] * 3), "same_targets", [length], targets=512)
    target_N, context_N = targets_of(row.windows)
    assert context_N.max() == length and context_N.min() > length * 15 / 16 - 1e-9
    assert len(target_N) == len(set(target_N.tolist())) == 512
    assert scored(length) <= MOST_SCORED and 128 % scored(length) == 0


def test_nonoverlapping_on_a_hand_made_case():
    three, five = planned(text(4, 7), "nonoverlapping", [3, 5])
    assert listed(three) == [[(n + k, k) for k in (1, 2, 3)] for n in (0, 3, 6)] + [[(10, 1)]]
    assert listed(five) == [[(n + k, k) for k in (1, 2, 3, 4, 5)] for n in (0, 5)]


def test_sliding_on_a_hand_made_case():
    four, six = planned(text(6, 6), "sliding", [4, 6], stride=3)
    assert listed(four) == [
        [(1, 1), (2, 2), (3, 3), (4, 4)],
        [(5, 2), (6, 3), (7, 4)],
        [(8, 2), (9, 3), (10, 4)],
        [(11, 4)],
    ]
    assert listed(six) == [[(k, k) for k in range(1, 7)], [(7, 4), (8, 5), (9, 6)], [(10, 5), (11, 6)]]


def test_per_position_on_a_hand_made_case():
    rows = planned(text(17), "per_position", [2, 8])
    assert all((row.windows == [[0, 1, 9], [8, 9, 17]]).all() for row in rows)
    _, context_N = targets_of(rows[0].windows)
    about = [set(context_N[row.chosen].tolist()) for row in rows]
    assert about == [{1}, {2}, {3}, {4}, {5, 6}, {7, 8}]
    assert [row.length for row in rows] == [1, 2, 3, 4, 6, 8]


def test_last_k_on_a_hand_made_case():
    # Windows of 3 from 0, 3, 6 and of 5 from 0 and 5; the last one of each is not whole.
    three, five = planned(text(4, 7), "last_k", [3, 5], stride=2)
    assert listed(three) == [[(2, 2), (3, 3)], [(5, 2), (6, 3)], [(8, 2), (9, 3)]]
    assert listed(five) == [[(4, 4), (5, 5)], [(9, 4), (10, 5)]]


def test_second_half_is_that_of_llama_cpp():
    """tools/perplexity cuts chunks of n_ctx tokens, and logits from n_ctx/2 on predict the next tokens of the chunk."""
    tokens = text(11, 9)
    rows = planned(tokens, "second_half", [4, 5, 6])
    for row in rows:
        n_ctx, total = row.length, len(tokens.ids)
        chunks = range(0, total // n_ctx * n_ctx, n_ctx)
        expected = [[(start + i + 1, i + 1) for i in range(n_ctx // 2, n_ctx - 1)] for start in chunks]
        assert listed(row) == expected
    assert listed(rows[0]) == [[(n + 3, 3)] for n in (0, 4, 8, 12, 16)]
    with pytest.raises(Misuse, match="at least 3"):
        planned(tokens, "second_half", [2, 8])


def test_fixed_windows_on_a_hand_made_case():
    two, four = planned(text(6, 7), "fixed_windows", [2, 4], targets=1)
    assert listed(two) == [[(n + 1, 1), (n + 2, 2)] for n in (0, 4, 8)]
    assert listed(four) == [[(n + k, k) for k in (1, 2, 3, 4)] for n in (0, 4, 8)]


def test_window_means_on_a_hand_made_case():
    (slid,), (row,) = planned(text(12), "sliding", [4], stride=3), planned(text(12), "window_means", [4], stride=3)
    assert (row.windows == slid.windows).all() and listed(row)[0] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert row.weights().tolist() == pytest.approx([1 / 4] * 4 + [1 / 3] * 6 + [1])
    assert slid.weights().tolist() == [1] * 11


def test_sliding_late_on_a_hand_made_case():
    four, six = planned(text(6, 6), "sliding_late", [4, 6], stride=3)
    assert listed(four) == [[(7, 4)], [(8, 2), (9, 3), (10, 4)], [(11, 4)]]
    assert listed(six) == [[(7, 4), (8, 5), (9, 6)], [(10, 5), (11, 6)]]


def test_overlapping_on_a_hand_made_case():
    four, six = planned(text(6, 6), "overlapping", [4, 6], stride=3)
    assert listed(four) == [[(n + k, k) for k in (1, 2, 3, 4)] for n in (0, 3, 6)]
    assert listed(six) == [[(n + k, k) for k in range(1, 7)] for n in (0, 3)]


def test_truncated_and_document_heads_on_a_hand_made_case():
    # Documents [0, 5), [5, 9), [9, 16): the second is not longer than the longest length.
    tokens = text(5, 4, 7)
    three, four = planned(tokens, "truncated", [3, 4])
    assert listed(three) == [[(n + k, k) for k in (1, 2, 3)] for n in (0, 9)]
    assert listed(four) == [[(n + k, k) for k in (1, 2, 3, 4)] for n in (0, 9)]
    three, four = planned(tokens, "document_heads", [3, 4])
    assert listed(three) == [pair for n in (0, 9) for pair in ([(n + k, k) for k in (1, 2, 3)], [(n + 4, 1)])]
    assert listed(four) == [[(n + k, k) for k in (1, 2, 3, 4)] for n in (0, 9)]


def test_per_document_on_a_hand_made_case():
    three, five = planned(text(5, 1, 3), "per_document", [3, 5])
    assert listed(three) == [[(1, 1), (2, 2), (3, 3)], [(4, 1)], [(7, 1), (8, 2)]]
    assert listed(five) == [[(1, 1), (2, 2), (3, 3), (4, 4)], [(7, 1), (8, 2)]]
    (bound,) = planned(text(50, 60), "per_document", [5], targets=20)
    assert listed(bound) == [[(n + k, k) for k in range(1, 6)] for n in (0, 5, 50, 55)]


def windows_of_lm_eval(ids: list[int], prefix: int, size: int) -> list[tuple[list[int], list[int]]]:
    """(what the model reads, what is scored) of each window of a document, by lm_eval/utils.py: its
    get_rolling_token_windows(ids, prefix, size, context_len=1), then make_disjoint_window."""
    first = ids[:size]
    pairs = [([prefix, *first[:-1]], first)]
    done = len(first)
    while done < len(ids):
        end = done + min(len(ids) - done, size)
        pairs.append((ids[end - size - 1 : end - 1], ids[done:end]))
        done = end
    disjoint = [(a[: len(a) - (len(b) - 1)], b) for a, b in pairs]
    return [(a + b[:-1], b) for a, b in disjoint]


def test_rolling_is_that_of_lm_evaluation_harness():
    tokens = replace(text(5, 1, 12, 9), prefix=V)
    for row in planned(tokens, "rolling", [3, 4, 9]):
        assert row.tokens is not None and row.tokens.bytes == tokens.bytes
        read = [row.tokens.ids[start : stop - 1].tolist() for start, _, stop in row.windows]
        scored = [row.tokens.ids[first:stop].tolist() for _, first, stop in row.windows]
        documents = [tokens.ids[a:b].tolist() for a, b in zip(tokens.starts, tokens.starts[1:], strict=False)]
        expected = [pair for document in documents for pair in windows_of_lm_eval(document, V, row.length)]
        assert list(zip(read, scored, strict=True)) == expected
    with pytest.raises(Misuse, match="this tokenizer has neither: choose per_document"):
        planned(replace(tokens, prefix=None), "rolling", [3])


def test_a_bound_that_is_kept_loosely_is_said_with_the_tokens_to_read():
    tokens = text(*[300] * 20)
    (line,) = announcement(tokens, EvalConfig(protocols=["nonoverlapping"], targets=500), [16, 64])
    assert line.endswith("documents; eval.targets=500 bounds whole spans loosely: 4,096 tokens are read at length 64")
    (line,) = announcement(tokens, EvalConfig(protocols=["nonoverlapping"], targets=None), [16, 64])
    assert "eval.targets" not in line


def test_behind_a_beginning_token_a_span_is_whole_and_nothing_repeats_what_is_not_read():
    tokens = replace(text(2000), bos=V)
    (row,) = PROTOCOLS["induction"].cut(tokens, [31], 31, 8, 64)
    assert row.tokens is not None and row.tokens.bos == V
    start, first, stop = row.windows[0].tolist()
    copy = row.tokens.ids[first - 1 : stop]
    assert len(copy) == 8 and (row.tokens.ids[start + 1 : start + 9] == copy).all()
    assert PROTOCOLS["repeats"].cut(replace(tokens, bos=None), [V], V, 1, None), "0 to 22 and 0 again"
    with pytest.raises(Misuse, match="no rare token occurs twice"):
        PROTOCOLS["repeats"].cut(tokens, [V], V, 1, None)


MOVING = {name for name, protocol in PROTOCOLS.items() if protocol.moving}


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - MOVING - {"per_position"} - BEYOND))
def test_a_protocol_scores_the_same_targets_at_every_length_unless_it_says_so(protocol):
    tokens = text(70, 33, 20, 200, 34)
    for bound in (None, 40):
        rows = planned(tokens, protocol, [8, 16, 32], stride=4, targets=bound)
        assert len({hash_of(tokens, row) for row in rows}) == 1


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - BEYOND))
def test_every_window_has_text_to_read_and_targets_within_it(protocol):
    tokens = text(70, 33, 20, 200, 34)
    for bound in (None, 40):
        for row in planned(tokens, protocol, [8, 16, 32], stride=4, targets=bound):
            start_W, first_W, stop_W = row.windows.T
            assert (start_W >= 0).all() and (start_W < first_W).all() and (first_W < stop_W).all()
            assert stop_W.max() <= len((row.tokens or tokens).ids) and row.inputs <= 32
            assert row.inputs == row.length - (protocol == "second_half") or protocol == "per_position"


def test_the_controls_are_on_the_targets_of_the_run():
    tokens = text(90, 70, 200)
    config = EvalConfig(protocols=["same_targets"], lengths=[8, 32, 64])
    assert reach(tokens) == 64
    rows = plan(tokens, config, [8, 32, 64], train_length=16)
    assert [(row.length, row.control) for row in rows] == [
        *((64, ""), (64, "window"), (64, "shuffled"), (32, ""), (32, "window"), (32, "shuffled")),
        *((16, ""), (8, ""), (2, "")),
    ], "the input cropped to the training length and to an eighth of it are added"
    assert len({hash_of(tokens, row) for row in rows}) == 1
    assert [row.inputs for row in rows] == [row.length for row in rows]
    assert len(plan(tokens, config, [8, 32, 64], train_length=32)) == 3 + 2 + 1
    assert len(plan(tokens, config, [8, 32, 64], train_length=64)) == 3, "nothing is longer"
    without = EvalConfig(protocols=["same_targets"], lengths=[8, 64], controls=False)
    assert [row.length for row in plan(tokens, without, [8, 64], train_length=16)] == [64, 16, 8, 2], "they cost little"


def test_parts_of_the_training_length_are_measured_by_default():
    tokens = text(700, 600, 900)
    rows = plan(tokens, EvalConfig(protocols=["same_targets"], controls=False), [32, 128], train_length=32)
    assert [row.length for row in rows] == [128, 32, 16, 8, 4, 2] and len({hash_of(tokens, row) for row in rows}) == 1


def test_contexts_at_the_training_length_are_close_to_it():
    """A model that uses exactly its training length must not seem to gain from any longer input."""
    tokens = text(*[9000] * 16)
    for trained, least in ((128, 120), (512, 504), (1024, 1008)):
        rows = plan(tokens, EvalConfig(lengths=[trained], targets=None), [64, trained, 4096], train_length=trained)
        of_length = {row.length: row for row in rows if row.protocol == "same_targets" and not row.control}
        target_N, context_N = targets_of(of_length[trained].windows)
        assert context_N.min() > least and context_N.max() == trained
        assert (np.sort(target_N) == np.sort(targets_of(of_length[4096].windows)[0])).all()
        assert targets_of(of_length[4096].windows)[1].min() > 4096 - 128


def test_the_level_has_eight_times_the_targets_at_the_training_length_alone():
    tokens = text(*[9000] * 16)
    (row,) = plan(tokens, EvalConfig(protocols=["level"], targets=1024), [64, 512], train_length=128)
    target_N, context_N = targets_of(row.windows)
    assert (row.length, len(target_N), row.read) == (128, 8 * 1024, 4 * 8 * 1024)
    assert context_N.min() > 96 and context_N.max() == 128 and len(np.unique(target_N)) == len(target_N)
    document_N = np.searchsorted(tokens.starts, target_N, side="right") - 1
    assert (np.bincount(document_N) == 512).all() and (target_N - context_N >= tokens.starts[document_N]).all()
    (whole,) = plan(text(150), EvalConfig(protocols=["level"], targets=None), [64], train_length=64)
    assert len(targets_of(whole.windows)[0]) == (150 - 64) // 16 * 16
    (short,) = plan(text(70), EvalConfig(protocols=["level"]), [64], train_length=64)
    assert len(targets_of(short.windows)[0]) == 4, "shorter documents give shorter pieces"
    with pytest.raises(Misuse, match="no document is long enough for evaluation length 256"):
        plan(text(150), EvalConfig(protocols=["level"]), [64, 512], train_length=256)


def test_far_text_is_shuffled_and_near_text_is_not():
    text_BT1 = np.stack([np.arange(100, 133), np.arange(200, 233)])
    shuffle = shuffled_beyond(train_length=12)
    found = shuffle(text_BT1, np.array([7, 9]))
    assert (found[:, 20:] == text_BT1[:, 20:]).all(), "12 inputs and the target stay"
    assert (np.sort(found[:, :20]) == text_BT1[:, :20]).all() and (found[:, :20] != text_BT1[:, :20]).sum() > 20
    assert (found == shuffle(text_BT1, np.array([7, 9]))).all() and text_BT1[0, 0] == 100
    assert (found[0, :20] - 100 != found[1, :20] - 200).any(), "each window in its own way"


def test_the_stride_is_a_constant_unless_given_and_no_longer_than_the_shortest_length():
    sliding = EvalConfig(protocols=["sliding"])
    for lengths in ([64, 32], [64], [128, 64]):
        assert {row.stride for row in plan(text(900), sliding, lengths)} == {STRIDE}
    assert {row.stride for row in plan(text(900), EvalConfig(protocols=["sliding"], stride=7), [64, 16])} == {7}
    with pytest.raises(Misuse, match="longer than the shortest"):
        plan(text(900), sliding, [16, 64])
    with pytest.raises(Misuse, match="longer than the shortest"):
        plan(text(900), EvalConfig(protocols=["last_k"], stride=17), [16, 64])
    strided, plain = (plan(text(900), EvalConfig(stride=stride), [16, 64])[0] for stride in (5, None))
    assert (strided.windows == plain.windows).all(), "same_targets has its own"


def test_a_bound_on_targets_is_spread_evenly_over_documents_and_within_them():
    tokens = text(150, 60, 80, 150)
    (row,) = planned(tokens, "same_targets", [64], targets=4 * 20)
    firsts = row.windows[:, 1]
    inside = [
        np.sort(firsts[(firsts >= a) & (firsts < b)] - a)
        for a, b in zip(tokens.starts, tokens.starts[1:], strict=False)
    ]
    assert blocks(tokens, 64, 4).tolist() == [21, 0, 4, 21]
    assert [len(found) for found in inside] == [8, 0, 4, 8], "20 blocks of 4, so that all three documents have some"
    (many,) = planned(text(*[150] * 40), "same_targets", [64], targets=80)
    assert len(many.windows) == 40, "40 blocks of 2, so that there are 32 or more"
    assert max(inside[0]) - min(inside[0]) > 50 and max(np.diff(inside[0])) <= 2 * min(np.diff(inside[0]))
    for wanted in (1, 5, 30, 1000):
        assert share_out(np.array([24, 0, 7, 24]), wanted).sum() == min(wanted, 55)
    assert share_out(np.array([24, 0, 7, 24]), 55).tolist() == [24, 0, 7, 24]


def test_at_every_length_a_target_sees_its_own_document_alone():
    tokens = text(70, 33, 20, 200, 34)
    rows = planned(tokens, "same_targets", [8, 16, 32])
    for row in rows:
        target_N, context_N = targets_of(row.windows)
        assert context_N.max() == row.length
        begin_N = tokens.starts[np.searchsorted(tokens.starts, target_N, side="right") - 1]
        assert (target_N - context_N >= begin_N).all()
        assert len(np.unique(target_N)) == len(target_N)


def test_the_reach_is_the_longest_power_of_two_that_enough_documents_and_targets_have():
    long, short = [1000] * MIN_DOCUMENTS, [300] * 100
    assert reach(text(*long, *short)) == 512, "16 documents have 512 tokens before a block, and 7,680 targets in all"
    assert reach(text(*long[1:], *short)) == 256, "one fewer, and 300 tokens must do"
    assert reach(text(*[560] * MIN_DOCUMENTS, *[1] * 60_000)) == 256, "behind 512 tokens are too few targets"
    assert reach(text(*[1000] * 5)) == 512, "of fewer documents than 16 all"
    assert reach(text(1000, 1000, 1000, 20)) == 512, "but for a quarter"
    assert reach(text(1000, 1000, 20, 20)) == 16, "which is no quarter"
    assert reach(text(200_000)) == MOST_REACH and reach(text(1)) == 0
    assert stream_reach(text(*[7] * 9000)) == FRAME and stream_reach(text(*[7] * 100)) == 256


def test_all_lengths_within_reach_share_their_targets_whatever_is_asked_for_and_in_whichever_order():
    tokens = text(*[1000] * 20, *[90] * 50)
    config = EvalConfig(protocols=[name for name, one in PROTOCOLS.items() if one.reach and name not in BEYOND])
    hashes: dict[tuple, set[str]] = {}
    for lengths in ([512], [128, 64], [64, 512], [512, 64, 128], [256, 100]):
        for train_length in (None, 64, 256):
            for row in plan(tokens, config, lengths, train_length):
                moves = PROTOCOLS[row.protocol].moving
                hashes.setdefault((row.protocol, row.length * moves), set()).add(hash_of(tokens, row))
    assert reach(tokens) == 512 and all(len(found) == 1 for found in hashes.values()), hashes


def test_a_length_beyond_the_reach_has_a_set_of_its_own_with_the_shorter_lengths_in_it():
    tokens = text(*[1000] * 20, *[3000] * 4, 9000)
    config = EvalConfig(protocols=["same_targets"])
    rows = plan(tokens, config, [128, 512, 1500, 4096])
    sets: dict[str, list[int]] = {}
    for row in rows:
        sets.setdefault(hash_of(tokens, row), []).append(row.length)
    assert [sorted(lengths) for lengths in sets.values()] == [[128, 512], [128, 512, 1500], [128, 512, 1500, 4096]]
    far = {hash_of(tokens, row) for row in plan(tokens, config, [2048])}
    assert far == {list(sets)[1]}, "the set belongs to the power of two"
    moving = [row.length for row in plan(tokens, EvalConfig(protocols=["last_k"]), [128, 8192, 16384])]
    assert sorted(moving) == [128, 8192, 16384], "where each length has targets of its own, none is measured twice"


def test_a_command_says_the_reach_the_targets_and_the_documents_and_what_is_beyond():
    tokens = text(*[1000] * 20, *[3000] * 4)
    near, far = announcement(tokens, EvalConfig(protocols=["same_targets"], targets=640), [128, 512, 2048])
    assert (
        near
        == "same_targets: reach 512 tokens, up to which all lengths score the same 640 targets in 24 of 24 documents"
    )
    assert far.startswith("same_targets: 2048 is beyond the reach of 512 tokens: measured with the shorter lengths")
    assert "on a far set of 640 targets in 4 of 24 documents" in far and far.endswith("reported apart")
    (only,) = announcement(tokens, EvalConfig(protocols=["same_targets"]), [512])
    assert "the same 8,192 targets" in only and MIN_TARGETS <= 8192


def test_the_longest_length_that_is_named_is_possible():
    for size in range(3, 70):
        tokens = text(size, 2)
        with pytest.raises(Misuse, match="longest possible here is") as refused:
            plan(tokens, EvalConfig(protocols=["same_targets"]), [2, 500])
        assert "no document is long enough for evaluation length 500" in str(refused.value)
        possible = int(str(refused.value).rpartition(" ")[2])
        assert plan(tokens, EvalConfig(protocols=["same_targets"]), [possible])
        with pytest.raises(Misuse, match=f"longest possible here is {possible}"):
            plan(tokens, EvalConfig(protocols=["same_targets"]), [2 * possible])
    for protocol, possible in (("nonoverlapping", 32), ("sliding", 32), ("per_position", 53)):
        config = EvalConfig(protocols=[protocol], stride=4)
        with pytest.raises(Misuse, match=f"longest possible here is {possible}"):
            plan(text(34, 20), config, [16, 54])
        assert plan(text(34, 20), config, [16, possible])


def test_own_lengths_double_as_far_as_the_text_reaches():
    assert own_lengths(text(80, 70), 16, EvalConfig()) == [16, 32, 64]
    assert own_lengths(text(*[80] * 15, *[200] * 5), 16, EvalConfig()) == [16, 32, 64], "only five have more"
    assert own_lengths(text(70, 30), 16, EvalConfig(protocols=["sliding"], stride=4)) == [16, 32]
    assert own_lengths(text(900), 16, EvalConfig()) == [16, 32, 64, 128, 256]
    assert own_lengths(text(70, 30), 16, EvalConfig(lengths=[8])) == [8]
    assert own_lengths(text(*[30] * 20, 90), 64, EvalConfig()) == [64], "beyond the reach, but possible"
    with pytest.raises(Misuse, match="evaluation length 16"):
        own_lengths(text(12, 12), 16, EvalConfig())


def test_a_bound_leaves_every_length_the_same_stretches():
    tokens = text(*[300] * 20)
    rows = planned(tokens, "nonoverlapping", [16, 64], targets=500)
    scored = [set(targets_of(row.windows)[0].tolist()) for row in rows]
    assert scored[0] == scored[1] and len(scored[0]) == MIN_STRETCHES * 64
    assert len({target // 300 for target in scored[0]}) >= MIN_STRETCHES, "stretches lie all over the split"


def test_the_targets_hash_tells_texts_and_places_apart_and_not_the_order_of_windows():
    tokens, target_N = text(50), np.arange(20, 40)
    same = targets_hash(tokens, target_N)
    assert targets_hash(tokens, target_N[::-1]) == same and len(same) == 12
    other = Tokens(tokens.ids.copy(), tokens.starts, tokens.bytes, "")
    other.ids[30] += 1
    different = [targets_hash(other, target_N), targets_hash(tokens, target_N + 5), targets_hash(tokens, target_N[1:])]
    assert (
        len({same, *different, targets_hash(tokens, target_N, target_N), targets_hash(tokens, target_N, target_N - 1)})
        == 6
    )
