"""posexp check: known figures come out, and a broken promise is found, named and ends in exit code 1."""

import math
import re
import textwrap
from pathlib import Path

import pytest
import torch
from support.command import Answer, here

from posexp.check.measure import (
    MAX_POSITION,
    Row,
    batch_leak,
    bias_type,
    finite_reach,
    future_leak,
    memory,
    order_effect,
    rows,
)
from posexp.check.probe import DIMS, FLOOR, Make, Probe, furthest, text
from posexp.check.verdict import examine
from posexp.config.components import chosen
from posexp.config.sections import config_dir
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.schemes import Scheme, build_scheme

MINE = textwrap.dedent('''
    import torch
    from posexp.schemes import Scheme

    class Sound(Scheme):
        relative = True

        def distance_bias(self, gap_N):
            return -gap_N.float().sqrt().expand(self.dims.n_head, -1)

    class Claims(Sound):
        """Says that it is relative, and adds where it is."""

        def embed(self, x_BTD, pos_BT):
            return x_BTD + (pos_BT.float() / 50).sin()[..., None]

    class Peeks(Scheme):
        reads_positions = False

        def attend(self, q_BHTC, k_BHTC, v_BHTC, pos_BT, x_BTD, window):
            return (q_BHTC @ k_BHTC.transpose(-1, -2)).softmax(-1) @ v_BHTC

    class Falls(Scheme):
        def rotate(self, q_BHTC, k_BHTC, pos_BT):
            raise ValueError("no [bold]rotation[/bold]\\nhere")

    class Heaps(Scheme):
        """Another sequence's positions and tokens come along."""

        def embed(self, x_BTD, pos_BT):
            return x_BTD + x_BTD.mean(0) + (pos_BT % 5)[..., None] / 5
''')


def own(name: str, **options: object) -> Make:
    return lambda dims: build_scheme(name, dims, **options)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "checked_schemes.py").write_text(MINE)
    folder = tmp_path / "conf" / "scheme"
    folder.mkdir(parents=True)
    for name in re.findall(r"class (\w+)", MINE):
        (folder / f"{name.lower()}.yaml").write_text(f"# mine\n_target_: checked_schemes.{name}\n")
    return tmp_path


def check(*words: str, cwd: Path) -> Answer:
    return here("check", *words, "lengths=[64,256]", "--config-dir", "conf", cwd=cwd)


def shifts(row: Row) -> tuple[float | None, float | None]:
    return row.figures["shift 1,000"], row.figures["shift 100,000"]


def test_shifting_alibi_changes_exactly_nothing() -> None:
    for row in rows(own("alibi"), [64, 300]):
        assert shifts(row) == (0.0, 0.0)
        assert row.figures["angle"] is None


def test_shifting_rope_changes_what_float32_rounds_and_no_more() -> None:
    (near, far), (rough, _) = map(shifts, rows(own("rope"), [128]))
    assert 0 < near < 1e-3
    assert 1e-4 < far < 0.01
    assert 0.001 < rough < 0.1


def test_sinusoidal_positions_are_not_relative_and_do_not_say_so() -> None:
    report = examine("sinusoidal", own("sinusoidal"), [128])
    assert all(min(shifts(row)) > 0.5 for row in report.rows)
    assert "relative" not in report.kept and "exact" in report.kept
    assert not report.broken


def test_the_length_at_which_xpos_overflows_is_found() -> None:
    """Of centred keys, zeta_0^(-length / 2 / scale_base) is the largest scale; queries and keys of ones turn to at most
    sqrt(2) times it."""
    found = {}
    for scale_base in (512.0, 64.0):
        for kind in (torch.float32, torch.float16):
            reach = finite_reach(own("xpos", scale_base=scale_base), kind)
            assert reach is not None
            formula = 2 * scale_base * math.log(torch.finfo(kind).max) / math.log(1.4 / 0.4)
            assert reach == pytest.approx(formula, rel=0.05)
            found[scale_base, kind] = reach
    assert 65536 < found[512.0, torch.float32] < 131072
    assert 8192 < found[512.0, torch.float16] < 16384


@pytest.mark.slow
def test_a_length_that_is_not_finite_breaks_the_promise() -> None:
    xpos = own("xpos", scale_base=2.0)
    assert not examine("xpos", xpos, [128]).broken
    line = examine("xpos", xpos, [1024]).broken["exact"]
    assert "at 1,024 tokens" in line and "inf" in line


def test_a_scheme_is_finite_up_to_its_own_end_or_beyond_all_that_is_tried() -> None:
    assert finite_reach(own("rope"), torch.float32) == MAX_POSITION == 2**24
    assert finite_reach(own("learned"), torch.float32) == DIMS.train_length
    assert finite_reach(own("fox"), torch.float32) is None  # reads content


def test_lengths_past_a_schemes_end_are_measured_at_its_end() -> None:
    assert [row.length for row in rows(own("learned"), [32, 128, 1024], (torch.float32,))] == [32, 64]
    assert [row.length for row in rows(own("fox"), [32, 2048, 4096], (torch.float32,))] == [32, 1024]


def test_inputs_that_change_their_own_beginning_are_found() -> None:
    squeezed, clamped = (
        rows(own("learned", past_end=end), [256], (torch.float32,))[0] for end in ("interpolate", "clamp")
    )
    assert (squeezed.figures["prefix"] or 0) > 0.1
    assert clamped.figures["prefix"] == 0


def test_angles_are_off_by_half_a_step_of_their_type() -> None:
    single, half = (row.figures["angle"] or 0 for row in rows(own("rope"), [8192]))
    assert 2**-18 < single < 8192 * 2**-24
    assert 2**-10 < half < 2**-7


@pytest.mark.parametrize("name", ["xpos", "fire", "t5", "sinusoidal", "randomized"])
def test_log_weights_are_those_of_attention(name: str) -> None:
    """A decoder's first block, computed from them, is what the decoder computes."""
    probe = Probe(own(name), n_layer=1)
    tokens_1T = text(16)
    weights_HTT = probe.log_weights(tokens_1T, 16)
    assert float(weights_HTT.max()) <= 0 and float(weights_HTT.min()) == FLOOR
    attention = probe.model.blocks[0].attention
    given = {}
    hook = attention.out.register_forward_pre_hook(lambda module, inputs: given.update(mixed=inputs[0]))
    values = attention.register_forward_pre_hook(lambda module, inputs: given.update(v=module.project(inputs[0])[2]))
    probe.hidden(tokens_1T)
    hook.remove(), values.remove()
    mixed_HTC = weights_HTT.exp().float() @ given["v"][0]
    assert furthest(mixed_HTC.transpose(0, 1).flatten(1)[None], given["mixed"]) < 1e-5


def test_drawn_positions_are_drawn_alike_each_time() -> None:
    assert memory(own("randomized")) == 0
    assert future_leak(own("randomized")) == 0
    state = torch.random.get_rng_state()
    examine("randomized", own("randomized"), [64])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_each_measurement_sees_what_it_is_for() -> None:
    class Future(Scheme):
        def embed(self, x_BTD: torch.Tensor, pos_BT: torch.Tensor) -> torch.Tensor:
            return x_BTD + x_BTD.roll(-1, dims=1)

    class Batch(Scheme):
        def embed(self, x_BTD: torch.Tensor, pos_BT: torch.Tensor) -> torch.Tensor:
            return x_BTD + x_BTD.mean(0)

    class Memory(Scheme):
        calls = 0

        def embed(self, x_BTD: torch.Tensor, pos_BT: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x_BTD * (1 + self.calls / 10) + self.calls

    class Half(Scheme):
        def bias(self, pos_BQ: torch.Tensor, pos_BK: torch.Tensor) -> torch.Tensor:
            return torch.zeros(1, self.dims.n_head, pos_BQ.shape[1], pos_BK.shape[1]).half()

    plain = own("none")
    for measure, bad in ((future_leak, Future), (batch_leak, Batch), (memory, Memory)):
        assert measure(plain) < 1e-6
        assert measure(lambda dims, bad=bad: bad(dims)) > 0.01
    assert order_effect(plain) < 1e-6 < 1e-3 < order_effect(own("alibi"))
    assert bias_type(plain) is None
    assert bias_type(own("alibi")) == torch.float32
    assert bias_type(lambda dims: Half(dims)) == torch.float16


def test_parameters_at_zero_act_while_they_are_measured() -> None:
    dims = Dims(d_model=32, n_head=4, n_layer=2, train_length=64)
    assert not any(weight.any() for weight in build_scheme("cope", dims).parameters())
    assert all(weight.any() for weight in Probe(own("cope")).scheme.parameters())
    assert order_effect(own("cope")) > 0.01


def test_authors_numbers_are_shown_with_their_source() -> None:
    line = examine("xpos", own("xpos"), [64], with_authors=True).kept["authors' numbers"]
    assert re.fullmatch(r"authors' numbers [\d.]+e-0[678] \(\d+ from torchscale 0.3.0\)", line)
    assert examine("none", own("none"), [64], with_authors=True).kept["authors' numbers"] == "authors' numbers: none"
    wrong = examine("xpos", own("rope"), [64], with_authors=True)
    assert not wrong.broken, "the numbers are those of posexp's own scheme of the name"


@pytest.mark.slow
def test_a_schemes_table_has_a_row_for_each_type_and_length(mine: Path) -> None:
    answer = check("rope", "sound", cwd=mine)
    assert answer.code == 0, answer.err
    assert "rope: Rope(base=10000, rotary_dim=8 of 8)" in answer.out
    for table in answer.out.split("sound: Sound")[:2]:
        for row in (r"float32 +64 ", r"float32 +256 ", r"bfloat16 +64 ", r"bfloat16 +256 "):
            assert len(re.findall(row, table)) == 1
    words = " ".join(answer.out.split())
    assert re.search(r"✓ rope relative [\d.e-]+ \(≤ 0.\d+\); prefix-stable 0 ", words)
    assert "from transformers" in words.partition("sound: Sound")[0]
    assert "authors' numbers: none" in words.partition("✓ sound")[2]


@pytest.mark.slow
def test_broken_promises_are_named_with_their_figures(mine: Path) -> None:
    answer = check("rope", "sound", "claims", "peeks", "falls", "heaps", cwd=mine)
    assert answer.refusal(1).endswith("4 of 6 schemes break a promise: claims, peeks, falls, heaps")
    words = " ".join(answer.out.split())
    assert "✓ rope" in words and "✓ sound" in words
    assert re.search(r"✗ claims relative: in \w+ at \d+ tokens moving all positions by [\d,]+ changes [\d.]+", words)
    assert re.search(r"✗ peeks prefix-stable: .*; no future: a later token changes the output by [\d.]+", words)
    assert "✗ falls ValueError: no [bold]rotation[/bold] here" in words
    assert re.search(r"✗ heaps batch apart: another sequence in the batch changes the output by [\d.]+", words)


def test_the_name_of_no_scheme_is_one_line(mine: Path) -> None:
    for wrong, meant in (("roep", "rope"), ("clams", "claims")):
        line = check("rope", wrong, cwd=mine).refusal()
        assert f"no scheme {wrong!r}, did you mean {meant!r}?; posexp schemes lists all" in line
    assert check("rope", "roep", cwd=mine).out == ""


def test_without_names_every_scheme_is_checked() -> None:
    folder = config_dir() / "scheme"
    assert list(chosen([], [folder])) == sorted(path.stem for path in folder.glob("*.yaml"))


def test_a_name_in_two_folders_is_that_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "rope.yaml").write_text("# mine\n_target_: mine.Rope\n")
    (tmp_path / "zigzag.yaml").write_text("# mine\n_target_: mine.Zigzag\n")
    there = chosen([], [config_dir() / "scheme", tmp_path])
    assert there["rope"].parent != tmp_path
    assert list(there)[-1] == "zigzag"
    with pytest.raises(Misuse, match="did you mean 'zigzag'"):
        chosen(["zigzga"], [tmp_path])


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((config_dir() / "scheme").glob("*.yaml")), ids=lambda path: path.stem)
def test_posexps_own_schemes_keep_their_promises(path: Path) -> None:
    assert examine(path.stem, own(path.stem), [64, 512], with_authors=True).broken == {}
