"""posexp inspect: the numbers in its pictures, for schemes whose numbers are known."""

import csv
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import files_of, run_of, world

from posexp import windows
from posexp.attention import attention
from posexp.config.commands import InspectCommand
from posexp.config.sections import Device, ModelConfig, config_dir
from posexp.dims import Dims
from posexp.errors import Misuse, RunFailed
from posexp.inspect import inspect
from posexp.inspect.attention import KEYS, even, head_range, read_attention, statistics, title_of, weights
from posexp.inspect.bias import curves
from posexp.inspect.bias import picture as bias_picture
from posexp.inspect.frequencies import picture as frequencies_picture
from posexp.inspect.frequencies import title_of as title_of_turns
from posexp.inspect.frequencies import turns
from posexp.model.decoder import Decoder
from posexp.output.figure import ranges
from posexp.schemes import Scheme, build_scheme
from posexp.schemes.alibi import alibi_slopes
from posexp.windows import Window

DIMS = Dims(d_model=32, n_head=4, n_layer=3, train_length=64)
SCHEMES = sorted(path.stem for path in (config_dir() / "scheme").glob("*.yaml"))
WINDOWS = sorted(path.stem for path in (config_dir() / "window").glob("*.yaml"))


def attend(scheme: Scheme, pos_BT: torch.Tensor, window: Window) -> partial:
    """What a block is handed."""
    return partial(attention, scheme, pos_BT=pos_BT, window=window)


def drawn(T: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Queries, keys, values, positions and the block's input of one sequence."""
    draw = torch.Generator().manual_seed(seed)
    qkv = (torch.randn(1, DIMS.n_head, T, DIMS.head_dim, generator=draw) for _ in range(3))
    return *qkv, torch.arange(T)[None], torch.randn(1, T, DIMS.d_model, generator=draw)


def given(scheme: Scheme, window: Window, T: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All weights, [H, T, T], and what attention makes of values with them, [H, T, C]."""
    q, k, v, _, x = drawn(T)
    pos = scheme.positions(1, T, q.device)
    with torch.no_grad():
        all_weights = weights(attend(scheme, pos, window), q, k, x, slice(0, T))
        return all_weights[0], attention(scheme, q, k, v, pos, x, window)[0]


@pytest.mark.parametrize("name", SCHEMES)
def test_the_weights_that_are_read_are_those_that_attention_uses(name: str) -> None:
    torch.manual_seed(0)
    scheme = build_scheme(name, DIMS).eval()
    for weight in scheme.parameters():
        weight.data += 0.3 * torch.randn_like(weight)
    weight_HTT, mixed_HTC = given(scheme.layer(0), Window(DIMS), 40)
    v_HTC = drawn(40)[2][0]
    assert weight_HTT @ v_HTC == pytest.approx(mixed_HTC, abs=1e-5)
    assert (weight_HTT >= -1e-6).all() and (weight_HTT.sum(-1) < 1 + 1e-5).all()
    assert weight_HTT.triu(1).abs().max() == 0, "nobody looks ahead"


@pytest.mark.parametrize("name", WINDOWS)
def test_so_they_are_through_every_window(name: str) -> None:
    window = windows.build_window(name, Dims(32, 4, 3, 16)).layer(0)
    weight_HTT, mixed_HTC = given(build_scheme("rope", DIMS), window, 40)
    assert weight_HTT @ drawn(40)[2][0] == pytest.approx(mixed_HTC, abs=1e-5)
    visible_HTT = window.visible(torch.arange(40), torch.arange(40)).expand_as(weight_HTT)
    assert (weight_HTT[~visible_HTT] == 0).all() and (weight_HTT[visible_HTT] > 0).all()


def test_attention_without_preference_has_the_entropy_and_distance_of_an_even_one() -> None:
    T = KEYS + 50  # so that the weights are read in more than one piece
    x = drawn(2)[-1]
    zeros = torch.zeros(1, DIMS.n_head, T, DIMS.head_dim)
    distance, entropy, left = statistics(
        attend(build_scheme("none", DIMS), torch.arange(T)[None], Window(DIMS)), zeros, zeros, x
    )
    t = torch.arange(T, dtype=torch.float64)
    assert distance[0, 1] == pytest.approx(t / 2, rel=1e-5, abs=1e-5)
    assert entropy[0, 3] == pytest.approx(torch.log(t + 1), abs=1e-5)
    assert left == pytest.approx(torch.zeros_like(left), abs=1e-5)
    reference = even(Window(DIMS), T)
    assert reference[0] == pytest.approx(t / 2) and reference[1] == pytest.approx(torch.log(t + 1))


def test_attention_on_one_token_has_no_entropy_and_its_distance() -> None:
    class Fifth(Scheme):
        """All look five tokens back, as far as there are any."""

        def distance_bias(self, gap_N):
            return (gap_N == 5).float().expand(self.dims.n_head, -1) * 1000

    q, k, _, pos, x = drawn(30)
    distance, entropy, _ = statistics(attend(Fifth(DIMS), pos, Window(DIMS)), q, k, x)
    assert distance[0, :, 5:] == pytest.approx(5) and entropy[0, :, 5:] == pytest.approx(0, abs=1e-6)


def test_a_window_caps_the_distance_and_the_even_reference_with_it() -> None:
    window = windows.build_window("sliding", DIMS, size=8)
    q, k, _, pos, x = drawn(300)
    distance, entropy, _ = statistics(attend(build_scheme("none", DIMS), pos, window), q, k, x)
    assert distance.max() <= 7 and entropy.max() <= math.log(8) + 1e-6
    even_distance, even_entropy = even(window, 300)
    assert even_distance[7:] == pytest.approx(3.5) and even_entropy[7:] == pytest.approx(math.log(8))
    assert even_distance[:8] == pytest.approx(torch.arange(8) / 2)


def test_weights_that_do_not_add_up_to_one_leave_a_share_and_are_measured_without_it() -> None:
    class Half(Scheme):
        """Half a weight for the token itself, a quarter for the one before it, nothing from the first token."""

        def attend(self, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window):
            before = v_BHTC.roll(1, 2)
            return torch.cat((0 * v_BHTC[:, :, :1], (v_BHTC / 2 + before / 4)[:, :, 1:]), dim=2)

    q, k, _, pos, x = drawn(10)
    distance, entropy, left = (found[0] for found in statistics(attend(Half(DIMS), pos, Window(DIMS)), q, k, x))
    assert left[:, 1:] == pytest.approx(0.25) and left[:, 0] == pytest.approx(1)
    assert distance[:, 1:] == pytest.approx(1 / 3)
    assert entropy[:, 1:] == pytest.approx(-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3))
    mean_T, low_T, high_T = head_range(distance)
    assert mean_T[0].isnan() and low_T[0].isnan() and high_T[0].isnan() and not mean_T[1:].isnan().any()


def test_heads_without_a_value_do_not_count_in_the_mean() -> None:
    mean_T, low_T, high_T = head_range(torch.tensor([[1.0, math.nan], [3.0, 4.0]]))
    assert (mean_T.tolist(), low_T.tolist(), high_T.tolist()) == ([2.0, 4.0], [1.0, 4.0], [3.0, 4.0])


def test_alibis_curves_are_its_slopes_times_the_distance() -> None:
    (panel,) = curves(build_scheme("alibi", DIMS))
    assert panel.layers == [1, 2, 3] and panel.query is None
    assert panel.gap[0] == 0 and panel.gap[-1] == 16 * 64 and 64 in panel.gap and panel.gap.diff().min() > 0
    assert panel.bias == pytest.approx(-torch.tensor(alibi_slopes(4))[:, None] * panel.gap)
    picture = bias_picture(build_scheme("alibi", DIMS), "")
    assert picture is not None
    assert {row["bias"] for row in picture.rows if row["distance"] == 64} == {-64 * slope for slope in alibi_slopes(4)}
    assert "at distance 64: −16 to −0.25; at 1,024: −256 to −4" in picture.svg.decode()


class ByPosition(Scheme):
    """A bias of both positions: `share` of the query's, and minus the distance; another one in the last layer."""

    def __init__(self, dims: Dims, share: float):
        super().__init__(dims)
        self.share = share

    def layer(self, index: int) -> Scheme:
        return ByPosition(self.dims, self.share + 1) if index == 2 and self.share else self

    def bias(self, pos_BQ, pos_BK):
        bias_BQK = self.share * pos_BQ[:, :, None] - (pos_BQ[:, :, None] - pos_BK[:, None]).float()
        return bias_BQK[:, None].expand(-1, self.dims.n_head, -1, -1)


def test_a_bias_of_both_positions_is_drawn_at_several_queries_and_layers_that_differ_apart() -> None:
    found = curves(ByPosition(DIMS, 2.0))
    assert {(ranges(panel.layers), panel.query) for panel in found} == {
        (layers, query) for layers in ("1–2", "3") for query in (16, 64, 256, 1024)
    }
    for panel in found:
        assert panel.query is not None and panel.gap[-1] == panel.query
        share = 2.0 if panel.layers == [1, 2] else 3.0
        assert panel.bias[1] == pytest.approx(share * panel.query - panel.gap.float())


def test_a_bias_of_both_positions_that_is_one_of_distance_is_drawn_as_one() -> None:
    (panel,) = curves(ByPosition(DIMS, 0.0))
    assert panel.query is None and panel.bias[0] == pytest.approx(-panel.gap.float())


def test_no_bias_and_no_rotations_are_no_pictures() -> None:
    assert (
        bias_picture(build_scheme("rope", DIMS), "") is None
        and frequencies_picture(build_scheme("alibi", DIMS), "", "#000000") is None
    )


def test_pairs_that_never_complete_a_turn_in_training_are_counted_and_named() -> None:
    (one,) = turns(build_scheme("rope", Dims(128, 4, 2, 128), base=10000.0))
    # 2 pi 10000^(i/16) > 128 from i = 16 log(128 / 2 pi) / log 10000 = 5.2 on, > 2048 from 10.05 on
    assert one.unfinished(128) == list(range(6, 16)) and one.unfinished(2048) == list(range(11, 16))
    assert one.wave == pytest.approx(2 * math.pi * 10000 ** (torch.arange(16) / 16), rel=1e-5)
    assert title_of_turns(one, 128).startswith("10 of 16 pairs (6–15) never complete a turn in training, 5 of them")
    (slow,) = turns(build_scheme("rope", Dims(128, 4, 2, 128), base=2.0))
    assert slow.unfinished(128) == [] and title_of_turns(slow, 128) == "All 16 pairs complete a turn in training"


def test_xpos_has_the_half_life_of_every_pair() -> None:
    (one,) = turns(build_scheme("xpos", Dims(32, 4, 1, 64)))
    zeta = torch.tensor([0.4, 0.65, 0.9, 1.15], dtype=torch.float64) / 1.4
    assert one.half is not None and zeta ** (one.half / 512) == pytest.approx(0.5)
    assert one.half[0] == pytest.approx(283.3, abs=0.1)


def test_numbers_in_a_row_are_written_as_ranges() -> None:
    assert ranges([5, 1, 2, 3]) == "1–3, 5" and ranges([4]) == "4"


@pytest.fixture
def group(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = world(tmp_path_factory, tmp_path)
    monkeypatch.chdir(folder)
    return folder


def command(**knobs) -> InspectCommand:
    return InspectCommand(device=Device.cpu, **knobs)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_finished_run_gets_its_pictures_and_their_numbers(group: Path, capsys) -> None:
    paths = inspect(command())
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(path) for path in paths]
    rope, learned = (run_of(group, label) / "inspect" for label in ("rope", "learned"))
    assert sorted(files_of(rope)) == [
        f"{name}.{kind}" for name in ("attention", "frequencies") for kind in ("csv", "png", "svg")
    ]
    assert sorted(files_of(learned)) == ["attention.csv", "attention.png", "attention.svg"]
    for content in (files_of(rope) | files_of(learned)).values():
        assert len(content) > 300
    for picture in rope.glob("*.png"):
        from matplotlib.image import imread

        pixels = imread(picture)[..., :3]
        assert 0.01 < (pixels < 0.9).any(-1).mean() < 0.5, "something is drawn, and is not all there is"
    rows = table(rope / "attention.csv")
    assert [(row["layer"], row["position"]) for row in rows] == [("1", str(t)) for t in range(32)]
    for row in rows:
        t, entropy = int(row["position"]), float(row["entropy"])
        assert 0 <= float(row["distance_low"]) <= float(row["distance"]) <= float(row["distance_high"]) <= t
        assert 0 <= entropy <= math.log(t + 1) + 1e-6 and float(row["left"]) < 1e-5
        assert float(row["even_entropy"]) == pytest.approx(math.log(t + 1))
    assert [row["pair"] for row in table(rope / "frequencies.csv")] == [str(i) for i in range(8)]
    (line,) = [line for line in err.splitlines() if "undefined" in line]
    assert "undefined past 16 tokens" in line and len(table(learned / "attention.csv")) == 16
    before = files_of(rope)
    inspect(command(runs="rope*"))
    assert files_of(rope) == before, "the same run gives the same bytes"


@pytest.mark.slow
def test_a_damaged_run_does_not_keep_the_others_from_being_drawn(group: Path, capsys) -> None:
    for path in (run_of(group, "learned") / "checkpoint").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RunFailed, match="1 of 2 runs could not be inspected"):
        inspect(command(length=20))
    assert (run_of(group) / "inspect" / "attention.png").is_file()
    assert not (run_of(group, "learned") / "inspect").exists()
    assert "learned-s0" in capsys.readouterr().err


def test_what_cannot_be_drawn_is_one_line_and_leaves_nothing(group: Path) -> None:
    before = files_of(group / "results")
    with pytest.raises(Misuse, match=r"no finished run in results/default/alibi\*"):
        inspect(command(runs="alibi*"))
    with pytest.raises(
        Misuse, match=r"rope-s0.*the longest document, \d+ tokens, is shorter than one sequence of 10{6}"
    ):
        inspect(command(runs="rope*", length=1_000_000))
    config = run_of(group) / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("posexp.schemes.rope.Rope", "mine.Rope"))
    with pytest.raises(Misuse, match="trust=true"):
        inspect(command(runs="rope*"))
    config.write_bytes(before[str(config.relative_to(group / "results"))])
    assert files_of(group / "results") == before


class Text:
    ids = np.arange(2000, dtype=np.uint16) % 50
    starts = np.array([0, 900, 2000])


def decoder(scheme: str, window: Window | None = None) -> Decoder:
    config = ModelConfig(d_model=32, n_layer=3, n_head=4)
    return Decoder(config, 50, build_scheme(scheme, DIMS), seed=0, window=window).eval()


def test_the_title_compares_the_ends_of_training_and_of_the_input() -> None:
    model = decoder("none")
    for block in model.blocks:
        torch.nn.init.zeros_(block.attention.qkv.weight)  # type: ignore[union-attr, arg-type]
    reading = read_attention(model, Text(), 128)  # type: ignore[arg-type]
    assert reading.distance == pytest.approx(torch.arange(128).expand(3, 4, -1) / 2, abs=1e-4)
    # means over positions 56 … 63 and 112 … 127
    title = title_of(reading, 64)
    assert title == "Attention looks 30 tokens back at position 64 and 60 at 128; entropy 4.1 and 4.8 nats"
    assert not model.blocks[0].attention._forward_pre_hooks  # type: ignore[union-attr]


def test_every_layer_is_read_through_its_own_window() -> None:
    inner = {"_target_": "posexp.windows.sliding.Sliding", "size": 8}
    reading = read_attention(decoder("rope", windows.build_window("alternate", DIMS, every=2, inner=inner)), Text(), 40)  # type: ignore[arg-type]
    t = torch.arange(40) / 2
    for layer, reference in enumerate((t.clamp(max=3.5), t, t.clamp(max=3.5))):
        assert reading.even_distance[layer] == pytest.approx(reference)
        assert (reading.distance[layer].max() <= 7) == (layer != 1)


def test_drawn_positions_are_the_same_in_every_reading() -> None:
    model = decoder("randomized")
    one, other = read_attention(model, Text(), 40), read_attention(model, Text(), 40)  # type: ignore[arg-type]
    assert torch.equal(one.distance, other.distance) and torch.equal(one.entropy, other.entropy)
