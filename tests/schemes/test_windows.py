"""Windows: who sees whom, on hand-made cases, and far keys at the distances that their papers give them.

Shape suffixes: B batch, T tokens, Q query tokens, K key tokens, H heads, C channels of a head, D width of the
residual stream.
"""

from itertools import product

import pytest
import torch
from torch import Tensor

from posexp import windows
from posexp.attention import attention, bias_between, kernel_path
from posexp.config.components import lean, options_of
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, build_scheme
from posexp.windows import Window

DIMS = Dims(d_model=16, n_head=2, n_layer=4, train_length=8)


def seen(window: Window, T: int, head: int = 0) -> list[list[int]]:
    """Indices of the keys that each query sees, in a head."""
    index_T = torch.arange(T)
    visible_HTT = window.visible(index_T, index_T).reshape(-1, T, T)
    return [row_K.nonzero().flatten().tolist() for row_K in visible_HTT[head % len(visible_HTT)]]


def test_a_full_window_shows_everything_before_a_token() -> None:
    assert seen(windows.build_window("full", DIMS), 3) == [[0], [0, 1], [0, 1, 2]]
    assert windows.build_window("full", DIMS).full and windows.from_config(None, DIMS).full


def test_a_sliding_window_shows_the_latest() -> None:
    assert seen(windows.build_window("sliding", DIMS, size=2), 4) == [[0], [0, 1], [1, 2], [2, 3]]
    assert seen(windows.build_window("sliding", DIMS), 20)[19] == list(range(12, 20))  # null: as many as in training


def test_blocks_show_themselves_and_the_one_before() -> None:
    bca = windows.build_window("bca", DIMS, block=2)
    assert seen(bca, 6) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [2, 3, 4], [2, 3, 4, 5]]
    assert seen(windows.build_window("bca", DIMS), 13)[11:] == [
        [*range(4, 12)],
        [*range(8, 13)],
    ]  # null: half of training


def test_chunks_show_themselves_alone() -> None:
    chunked = windows.build_window("chunked", DIMS, size=3)
    assert seen(chunked, 7) == [[0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4, 5], [6]]
    assert windows.build_window("chunked", DIMS).fingerprint() == "chunked 2"  # a quarter of training


def test_a_share_of_the_training_length_and_a_size_in_tokens() -> None:
    built = [
        windows.build_window("sliding", DIMS, **sizes) for sizes in ({}, {"share": 0.5}, {"size": 3, "share": 2.0})
    ]
    assert [window.size for window in built] == [8, 4, 3]
    stored = {"_target_": "posexp.windows.sliding.Sliding", "size": None}  # of a run before there were shares
    assert windows.from_config(stored, DIMS).size == 8
    assert lean(options_of("window", "sliding", {})) == stored
    assert lean(options_of("window", "alternate", {}))["inner"] == stored


def test_the_first_heads_see_the_latest_tokens_and_the_others_all() -> None:
    """Hard-ALiBi: a token alone, then two, and so on, as in the authors' code."""
    window = windows.build_window("per_head", Dims(d_model=16, n_head=4, n_layer=1, train_length=8))
    assert [seen(window, 4, head)[3] for head in range(4)] == [[3], [2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert window.visible(torch.arange(4), torch.arange(4)).shape == (4, 4, 4)


def test_sinks_stay_in_sight() -> None:
    sinks = windows.build_window("sinks", DIMS, sinks=1, size=3)
    assert seen(sinks, 6) == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]
    shape = windows.build_window("lambda", DIMS, sinks=1, size=2, cap=3)
    assert seen(shape, 5) == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]]


def test_windows_alternate_by_layer() -> None:
    window = windows.build_window("alternate", DIMS, every=2)
    assert [window.layer(index).fingerprint() for index in range(4)] == ["sliding 8", "full", "sliding 8", "full"]


ALL = [
    ("full", {}),
    ("sliding", {"size": 5}),
    ("bca", {"block": 3}),
    ("sinks", {"sinks": 2, "size": 6}),
    ("lambda", {"sinks": 2, "size": 5, "cap": 4}),
    ("chunked", {"size": 5}),
    ("per_head", {"heads": 1}),
    ("per_head", {"heads": 2}),
]
SCHEMES = ["none", "rope", "xpos", "alibi", "fire"]


def distance(window: Window, query: int, key: int) -> tuple[int, int]:
    """Where the papers let a query and a key stand that see each other."""
    if window.fingerprint().startswith("sinks") and query - key >= 4:  # places in a cache of 2 + 4
        return min(query, 5), key
    if window.fingerprint().startswith("lambda") and query - key > 4:
        return 4, 0
    return query, key


def dense(scheme: Scheme, window: Window, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor) -> Tensor:
    """Every pair of tokens by itself, at its own two positions, float64."""
    T, C = q_BHTC.shape[2:]
    logits_BHTT = torch.full((*q_BHTC.shape[:2], T, T), -torch.inf, dtype=torch.float64)
    for head, query in product(range(q_BHTC.shape[1]), range(T)):
        for key in seen(window, T, head)[query]:
            at = torch.tensor([distance(window, query, key)])
            pair = [q_BHTC[:, :, [query, key]].double(), k_BHTC[:, :, [query, key]].double()]
            q, k = scheme.rotate(*pair, at)
            logits_BHTT[:, head, query, key] = (q[:, head, 0] * k[:, head, 1]).sum(-1) / C**0.5
            bias = bias_between(scheme, at[:, :1], at[:, 1:])
            if bias is not None:
                logits_BHTT[:, head, query, key] += bias[:, head, 0, 0].double()
    return logits_BHTT.softmax(-1) @ v_BHTC.double()


@pytest.mark.parametrize("scheme_name", SCHEMES)
@pytest.mark.parametrize(("name", "sizes"), ALL)
@pytest.mark.parametrize("block", [4, 256])
def test_attention_through_a_window_equals_pairs_taken_one_by_one(
    scheme_name: str, name: str, sizes: dict[str, int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "QUERY_BLOCK", block)
    T, draw = 17, torch.Generator().manual_seed(0)
    q_BHTC, k_BHTC, v_BHTC = (torch.randn(2, 2, T, 8, generator=draw) for _ in range(3))
    torch.manual_seed(1)
    scheme, window = build_scheme(scheme_name, DIMS), windows.build_window(name, DIMS, **sizes)
    pos_BT, x_BTD = torch.arange(T)[None], torch.zeros(2, T, 16)
    got_BHTC = attention(scheme, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window)
    wanted_BHTC = dense(scheme, window, q_BHTC, k_BHTC, v_BHTC)
    torch.testing.assert_close(got_BHTC.double(), wanted_BHTC, rtol=0, atol=2e-5)


def test_a_window_alone_takes_the_fast_path() -> None:
    paths = {
        name: kernel_path(build_scheme("rope", DIMS), DIMS, windows.build_window(name, DIMS, **sizes))
        for name, sizes in ALL
    }
    assert paths == {
        "full": "sdpa causal",
        "sliding": "sdpa distance view",
        "bca": "sdpa distance view",
        "sinks": "two positions",
        "lambda": "two positions",
        "chunked": "sdpa distance view",
        "per_head": "sdpa distance view",
    }
    mixed = kernel_path(build_scheme("rope", DIMS), DIMS, windows.build_window("alternate", DIMS))
    assert mixed == "sdpa distance view, sdpa causal"


@pytest.mark.parametrize(
    ("name", "sizes", "key"),
    [
        ("sliding", {"size": 0}, "window.size"),
        ("bca", {"block": 0}, "window.block"),
        ("sinks", {"sinks": 4, "size": 4}, "window.size"),
        ("lambda", {"cap": 0}, "window.cap"),
        ("alternate", {"every": 0}, "window.every"),
        ("chunked", {"share": 0.0}, "window.share"),
        ("sliding", {"share": -1.0}, "window.share"),
        ("per_head", {"heads": 3}, "window.heads"),
        ("per_head", {"heads": 0}, "window.heads"),
        ("sliding", {"size": "wide"}, "size"),
        ("sliding", {"width": 3}, "width"),
        ("slide", {}, "sliding"),
    ],
)
def test_impossible_windows_are_refused_in_one_line(name: str, sizes: dict, key: str) -> None:
    with pytest.raises(Misuse, match=key) as refusal:
        windows.build_window(name, DIMS, **sizes)
    assert "\n" not in str(refusal.value)


def test_content_has_no_distance_that_could_be_capped() -> None:
    scheme, window = build_scheme("fox", DIMS).layer(0), windows.build_window("lambda", DIMS)
    q_BHTC, x_BTD = torch.zeros(1, 2, 3, 8), torch.zeros(1, 3, 16)
    with pytest.raises(Misuse, match="sliding"):
        attention(scheme, q_BHTC, q_BHTC, q_BHTC, torch.arange(3)[None], x_BTD, window)
