"""Every path of attention computes the same, its gradients included, and none needs memory that grows with the square
of the length.

Shape suffixes: B batch, T tokens, H heads, C channels of a head, D width of the residual stream, Q and K blocks.
"""

import re
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from support.attention import PerDistance, PerPosition, inputs
from support.memory import Largest, kept_for_gradients
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.overrides import TorchFunctionMode

from posexp import windows
from posexp.attention import attention, by_distance, flex, kernel_path
from posexp.config.sections import AttentionPath, config_dir
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, build_scheme, slopes_of
from posexp.schemes.alibi import Alibi
from posexp.schemes.wrapper import Wrapper
from posexp.windows import Window

DIMS = Dims(d_model=16, n_head=2, n_layer=2, train_length=64)
CPU = torch.device("cpu")


class Sinks(Window):
    """The first three tokens and the latest 41."""

    sinks = 3

    def earliest(self, query_Q: Tensor) -> Tensor:
        return (query_Q - 40).clamp(min=0)

    def fingerprint(self) -> str:
        return "sinks"


WINDOWS: dict[str, Callable[[], Window]] = {
    "full": lambda: Window(DIMS),
    "sliding": lambda: windows.build_window("sliding", DIMS),
    "bca": lambda: windows.build_window("bca", DIMS),
    "sinks": lambda: Sinks(DIMS),
    "per_head": lambda: windows.build_window("per_head", DIMS),
}


def drawn(name: str) -> Scheme:
    """The same each time."""
    torch.manual_seed(0)
    return build_scheme(name, DIMS)


SCHEMES: dict[str, Callable[[], Scheme]] = {
    "learned distances": lambda: PerDistance(DIMS),
    "positions": lambda: PerPosition(DIMS),
    **{name: lambda name=name: drawn(name) for name in ("none", "rope", "alibi", "t5", "kerple_log", "cpb")},
}


@pytest.fixture
def plain_flex(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """FlexAttention as PyTorch runs it uncompiled: the same functions, dense matrices."""
    monkeypatch.setattr(flex, "kernel", lambda: flex_attention)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.compile.*")
        yield


def computed(scheme: Scheme, window: Window, path: AttentionPath, T: int, kind: torch.dtype) -> list[Tensor]:
    """The output, and the gradients of queries, keys, values and the scheme's weights."""
    qkv, pos_BT, x_BTD, slope_BHTC = inputs(T)
    scheme = scheme.to(kind)
    leaves = [*(part.detach().to(kind).requires_grad_() for part in qkv), *scheme.parameters()]
    out_BHTC = attention(scheme, *leaves[:3], pos_BT, x_BTD.to(kind), window, path)
    return [out_BHTC, *torch.autograd.grad((out_BHTC * slope_BHTC.to(kind)).sum(), leaves)]


@pytest.mark.parametrize("T", [1, 63, 128, 300])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_blocks_equal_the_dense_path_in_float64(scheme: str, window: str, T: int) -> None:
    wanted = computed(SCHEMES[scheme](), WINDOWS[window](), AttentionPath.dense, T, torch.float64)
    for kind, tolerance in ((torch.float64, 1e-6), (torch.float32, 2e-5)):  # the bias stays float32
        got = computed(SCHEMES[scheme](), WINDOWS[window](), AttentionPath.blocks, T, kind)
        for got_part, wanted_part in zip(got, wanted, strict=True):
            scale = float(wanted_part.detach().abs().max()) + 1
            torch.testing.assert_close(got_part.double(), wanted_part, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_gradient_of_a_learned_bias_is_the_same_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    wanted = computed(PerDistance(DIMS), Window(DIMS), AttentionPath.dense, 150, torch.float64)[-1]
    monkeypatch.setattr(by_distance, "GRADIENT_BLOCK", size)
    monkeypatch.setattr(by_distance, "GRADIENT_LOGITS", 200 * size)  # and some heads at a time
    got = computed(PerDistance(DIMS), Window(DIMS), AttentionPath.blocks, 150, torch.float64)[-1]
    torch.testing.assert_close(got, wanted, rtol=0, atol=2e-6)  # the bias itself is float32


@pytest.mark.parametrize("last", [None, 700])
def test_blocks_of_many_keys_are_wider_and_give_the_same(monkeypatch: pytest.MonkeyPatch, last: int | None) -> None:
    monkeypatch.setattr(by_distance, "WIDE_KEYS", 1000)
    monkeypatch.setattr(by_distance, "WIDE_BLOCK", 400)
    bias_HN, window = torch.zeros(2, 1500), Window(DIMS)
    listed = list(by_distance.blocks(by_distance.laid_out(bias_HN, window), window, count=last))
    sizes = [rows.stop - rows.start for rows, _, _ in listed]
    assert sizes == ([400, 400, 256, 256, 188] if last is None else [400, 300])
    assert [keys.stop for _, keys, _ in listed] == [1500, 1100, 700, 444, 188][: len(sizes)]
    found = [
        computed(drawn("alibi"), window, path, 1500, torch.float32)
        for path in (AttentionPath.blocks, AttentionPath.dense)
    ]
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5 * float(wanted.detach().abs().max() + 1))


def test_a_learned_bias_spread_over_copies_adds_the_same_and_gets_the_same_gradient() -> None:
    """The kernel's gradient needs a GPU; what it adds to a score, and where that gradient goes, does not."""
    B, H, T = 3, 2, 300
    index = [torch.arange(n).view(-1, *[1] * (3 - place)) for place, n in enumerate((B, H, T, T))]
    slope_BHTT, score_BHTT = torch.randn(B, H, T, T), torch.zeros(B, H, T, T)
    found = []
    for path in (
        flex.spread_over_copies,
        lambda bias_HN: lambda score, b, h, q, k: score + bias_HN[h, (q - k).clamp(min=0)],
    ):
        bias_HN = torch.randn(H, T, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
        added_BHTT = path(bias_HN)(score_BHTT, *index)
        (added_BHTT * slope_BHTT).sum().backward()
        found.append((added_BHTT.detach().float(), bias_HN.grad))
    (added, gradient), (wanted, wanted_gradient) = found
    torch.testing.assert_close(added, wanted)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("plain_flex")
@pytest.mark.parametrize("T", [1, 130, 300])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("scheme", ["learned distances", "none", "rope", "alibi", "t5"])
@torch.no_grad()
def test_flex_equals_the_dense_path(scheme: str, window: str, T: int) -> None:
    qkv, pos_BT, x_BTD, _ = inputs(T)
    q, k, v = (part.detach() for part in qkv)
    part, seen = SCHEMES[scheme](), WINDOWS[window]()
    wanted = attention(part, q.double(), k.double(), v.double(), pos_BT, x_BTD, seen, AttentionPath.dense)
    got = attention(part, q, k, v, pos_BT, x_BTD, seen, AttentionPath.flex)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=5e-6)


FLASHES = {"right": lambda out: out, "wrong": lambda out: out * 1.1, "failing": lambda out: out.missing}


@pytest.fixture(params=FLASHES)
def flash_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[bool]]]:
    """An installed flash backend, right or not, and which calls took it. The CPU stands for the GPU."""
    taken: list[bool] = []

    def kernel(*qkv: Tensor, kernel_options: dict[str, str] | None, **given: object) -> Tensor:
        taken.append(kernel_options == flex.FLASH_OPTIONS)
        out_BHTC = flex_attention(*qkv, **given)  # type: ignore[arg-type]
        return FLASHES[request.param](out_BHTC) if taken[-1] else out_BHTC

    monkeypatch.setattr(flex, "kernel", lambda: kernel)
    monkeypatch.setattr(flex, "has_flash", lambda device: True)
    flex.flash_fault.cache_clear()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.compile.*")
        yield request.param, taken
    flex.flash_fault.cache_clear()


REASONS = {
    "right": "flex flash",
    "wrong": r"flex \(flash: error 0\.\d+\)",
    "failing": r"flex \(flash: AttributeError .*\)",
}


@pytest.mark.parametrize("scheme", ["alibi", "t5"])
def test_evaluation_in_bfloat16_takes_the_flash_backend_if_it_is_right(
    scheme: str, flash_backend: tuple[str, list[bool]]
) -> None:
    kind, taken = flash_backend
    (q, k, v), pos_BT, x_BTD, _ = inputs(300)
    q, k, v = (part.detach().bfloat16() for part in (q, k, v))
    part, how = SCHEMES[scheme](), AttentionPath.flex
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert re.fullmatch(REASONS[kind], kernel_path(part, DIMS, path=how))
        taken.clear()
        got = attention(part, q, k, v, pos_BT, x_BTD, path=how)
    assert taken == [kind == "right"]
    wanted = attention(part, q.double(), k.double(), v.double(), pos_BT, x_BTD, path=AttentionPath.dense)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=0.02)


def test_flash_serves_no_gradient_no_float32_and_no_window(flash_backend: tuple[str, list[bool]]) -> None:
    alibi, how = build_scheme("alibi", DIMS), AttentionPath.flex
    with torch.autocast("cpu", torch.bfloat16):
        assert kernel_path(alibi, DIMS, path=how) == "flex"
        with torch.no_grad():
            assert kernel_path(alibi, DIMS, WINDOWS["sliding"](), path=how) == "flex"
    with torch.no_grad():
        assert kernel_path(alibi, DIMS, path=how) == "flex"
    assert flash_backend[1] == []


def test_a_scheme_that_names_slopes_has_the_bias_of_those_slopes() -> None:
    gap_N, named = torch.arange(100), []
    for name in (path.stem for path in sorted((config_dir() / "scheme").glob("*.yaml"))):
        slopes_H = slopes_of(drawn(name), CPU)
        if slopes_H is not None:
            named.append(name)
            torch.testing.assert_close(drawn(name).distance_bias(gap_N), -slopes_H[:, None] * gap_N)
    assert named == ["alibi"]


class Doubled(Alibi):
    """Twice ALiBi's bias, with the slopes of ALiBi."""

    def distance_bias(self, gap_N: Tensor) -> Tensor:
        return 2 * super().distance_bias(gap_N)


def test_slopes_belong_to_the_bias_that_the_same_class_adds() -> None:
    wrapped = build_scheme("pose", DIMS, inner="alibi")
    assert slopes_of(wrapped.eval(), CPU) is None and slopes_of(Doubled(DIMS), CPU) is None
    assert slopes_of(Wrapper(DIMS, build_scheme("alibi", DIMS)), CPU) is not None
    assert slopes_of(Wrapper(DIMS, Doubled(DIMS)), CPU) is None


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_flex_kernel_skips_blocks_and_equals_the_dense_path() -> None:
    """The real kernel, in the form that PyTorch has for a CPU. Here it reads the lists of blocks."""
    dims = Dims(d_model=32, n_head=2, n_layer=1, train_length=64)
    part, seen, T = build_scheme("alibi", dims), Sinks(dims), 300
    q, k, v = torch.randn(3, 1, 2, T, 16, generator=torch.Generator().manual_seed(0))
    pos_BT, x_BTD = torch.arange(T)[None], torch.zeros(1, T, 32)
    wanted = attention(part, q.double(), k.double(), v.double(), pos_BT, x_BTD, seen, AttentionPath.dense)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's compiler, about itself
        got = attention(part, q, k, v, pos_BT, x_BTD, seen, AttentionPath.flex)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=5e-6)


WIDE: dict[str, Callable[[], Window]] = {
    "sliding over whole blocks": lambda: windows.build_window("sliding", DIMS, size=300),
    "bca over whole blocks": lambda: windows.build_window("bca", DIMS, block=200),
    "chunks over whole blocks": lambda: windows.build_window("chunked", DIMS, size=300),
}


@pytest.mark.parametrize("T", [1, 127, 128, 129, 700])
@pytest.mark.parametrize(
    "window", sorted((WINDOWS | WIDE).keys() - {"per_head"})
)  # whose list is that of the widest head
def test_blocks_of_a_mask_are_listed_as_the_window_sees_them(window: str, T: int) -> None:
    seen = (WINDOWS | WIDE)[window]()
    mask, blocks = flex.block_mask(seen, T, CPU), -(-T // flex.BLOCK)
    index_T = torch.arange(T)
    visible_TT = torch.zeros(blocks * flex.BLOCK, blocks * flex.BLOCK, dtype=torch.bool)
    visible_TT[:T, :T] = seen.visible(index_T, index_T)
    tiles_QK = visible_TT.view(blocks, flex.BLOCK, blocks, flex.BLOCK).transpose(1, 2).flatten(2)

    def listed(count_11Q: Tensor, order_11QK: Tensor) -> Tensor:
        chosen_QK = torch.zeros(blocks, blocks, dtype=torch.bool)
        for row, (count, order_K) in enumerate(zip(count_11Q[0, 0], order_11QK[0, 0], strict=True)):
            chosen_QK[row, order_K[:count].long()] = True
        return chosen_QK

    full_QK = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
    assert full_QK.equal(tiles_QK.all(-1))
    assert listed(mask.kv_num_blocks, mask.kv_indices).equal(tiles_QK.any(-1) & ~tiles_QK.all(-1))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("last", [1, 5, 150, 299])
@torch.no_grad()
def test_the_last_queries_alone_give_what_they_give_among_all(scheme: str, window: str, last: int) -> None:
    (q, k, v), pos_BT, x_BTD, _ = inputs(300)
    part, seen = SCHEMES[scheme](), WINDOWS[window]()
    whole = attention(part, q, k, v, pos_BT, x_BTD, seen)
    got = attention(part, q, k, v, pos_BT, x_BTD, seen, last=last)
    torch.testing.assert_close(got, whole[:, :, -last:], rtol=0, atol=2e-6)


def test_a_path_can_be_forced_and_says_so() -> None:
    alibi, none = build_scheme("alibi", DIMS), build_scheme("none", DIMS)
    assert kernel_path(alibi, DIMS, path=AttentionPath.blocks) == "sdpa distance view"
    assert kernel_path(alibi, DIMS, path=AttentionPath.dense) == "dense"
    assert kernel_path(none, DIMS, path=AttentionPath.flex) == "flex"
    assert kernel_path(none, DIMS) == "sdpa causal"


@pytest.mark.parametrize(
    ("scheme", "window", "path", "reason"),
    [
        ("fire", "full", "flex", "more than a function of distance"),
        ("cope", "full", "dense", "one way to compute attention"),
        ("rope", "lambda", "blocks", "one way to compute attention"),
    ],
)
def test_a_path_that_cannot_do_it_is_refused(scheme: str, window: str, path: str, reason: str) -> None:
    with pytest.raises(Misuse, match=reason):
        kernel_path(build_scheme(scheme, DIMS), DIMS, windows.build_window(window, DIMS), AttentionPath(path))


class Calls(TorchFunctionMode):
    """Notes the operations that anything asks PyTorch for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [path.stem for path in sorted((config_dir() / "scheme").glob("*.yaml"))])
def test_naming_the_path_of_a_scheme_computes_nothing(name: str) -> None:
    scheme, drawn = build_scheme(name, DIMS), torch.get_rng_state()
    with Calls() as calls:
        kernel_path(scheme, DIMS, device=torch.device("cpu"))
    assert set(calls.names) <= {"device", "__get__"}  # attributes of a tensor, which cost nothing
    assert torch.equal(torch.get_rng_state(), drawn)


class Sometimes(Scheme):
    """Each hook does nothing, or what the scheme inside it does; it does not say which."""

    def __init__(self, dims: Dims, inner: Scheme):
        super().__init__(dims)
        self.inner, self.calls = inner, []

    def rotate(self, *given):
        self.calls.append("rotate")
        return self.inner.rotate(*given)

    def distance_bias(self, *given):
        self.calls.append("distance_bias")
        return self.inner.distance_bias(*given)

    def bias(self, *given):
        self.calls.append("bias")
        return self.inner.bias(*given)

    def attend(self, *given):
        self.calls.append("attend")
        return self.inner.attend(*given)


@pytest.mark.parametrize("inner", ["none", "rope", "alibi", "fire", "stick_breaking"])
@torch.no_grad()
def test_a_hook_that_gives_none_does_nothing_and_is_called_to_compute_alone(inner: str) -> None:
    (q, k, v), pos_BT, x_BTD, _ = inputs(20)
    plain = build_scheme(inner, DIMS)
    scheme = Sometimes(DIMS, plain)
    assert kernel_path(scheme, DIMS) == "scheme" and scheme.calls == []
    got, wanted = (attention(each, q, k, v, pos_BT, x_BTD) for each in (scheme, plain))
    assert torch.equal(got, wanted)


class Silent(Sometimes):
    def acts(self, hook: str) -> bool:
        return self.inner.acts(hook)


@pytest.mark.parametrize("inner", ["none", "rope", "alibi", "fire", "stick_breaking"])
def test_a_scheme_says_which_of_its_hooks_act(inner: str) -> None:
    scheme = Silent(DIMS, build_scheme(inner, DIMS))
    assert kernel_path(scheme, DIMS) == kernel_path(scheme.inner, DIMS)
    assert scheme.calls == []


def test_flex_on_a_cpu_refuses_to_train() -> None:
    with pytest.raises(Misuse, match="cannot train on a CPU"):
        computed(build_scheme("alibi", DIMS), Window(DIMS), AttentionPath.flex, 20, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("window", ["full", "bca"])
@pytest.mark.parametrize("scheme", ["none", "rope", "alibi", "t5", "kerple_log", "cpb", "fire"])
def test_no_tensor_of_a_training_step_grows_with_the_square_of_the_length(scheme: str, window: str) -> None:
    """Counted, not measured: the same on every machine."""
    part, seen = build_scheme(scheme, DIMS), WINDOWS[window]()
    largest, kept = {}, {}
    for T in (1024, 2048):
        q, k, v = (torch.randn(1, 2, T, 8, requires_grad=True) for _ in range(3))
        with Largest() as mode, kept_for_gradients() as total:
            out_BHTC = attention(part, q, k, v, torch.arange(T)[None], torch.zeros(1, T, 16), seen)
            out_BHTC.sum().backward()
        largest[T], kept[T] = mode.bytes, total[0]
    assert largest[2048] < 2.2 * largest[1024]
    assert kept[2048] < 2.2 * kept[1024]


def test_the_dense_path_would_fail_that() -> None:
    q, k, v = (torch.randn(1, 2, 1024, 8, requires_grad=True) for _ in range(3))
    with Largest() as mode:
        attention(
            build_scheme("alibi", DIMS),
            q,
            k,
            v,
            torch.arange(1024)[None],
            torch.zeros(1, 1024, 16),
            None,
            AttentionPath.dense,
        )
    assert mode.bytes >= 2 * 1024 * 1024 * 4
