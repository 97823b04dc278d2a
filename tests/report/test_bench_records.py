"""What posexp bench writes and compares, of measurements that are made up."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from posexp.bench import add_curves, file_name, write_bench
from posexp.bench.against import baseline_of, compare
from posexp.bench.interleave import Measured
from posexp.bench.models import Contender
from posexp.bench.peaks import vendor_peak
from posexp.bench.rows import bench_tables, ratio, rows_of
from posexp.config.bench import BenchCommand
from posexp.config.components import options_of
from posexp.config.sections import ModelConfig, Precision
from posexp.errors import Misuse
from posexp.report.bench_records import read_records, sizes_of

ROOT = Path(__file__).resolve().parents[2]
COMMAND = BenchCommand(model=ModelConfig(d_model=32), batch=2, length=16, rounds=3, precision=Precision.float32)
SETTINGS = sizes_of(COMMAND.model, COMMAND.vocab_size, 2, 16) | {"device": "cpu", "precision": "float32"}
NOTE = {
    **{"device": "a CPU", "cpu": "a CPU", "threads": 1, "torch": "2", "matmul_gflops": 1.0, "settings": SETTINGS},
    **{"date": "2026-11-29", "command": "posexp bench", "commit": "c", "dirty": False, "rounds": 3},
}
NONE, ALIBI = (Contender(name, options_of("scheme", name, {})) for name in ("none", "alibi"))


def measured(contender: Contender, speeds: list[float], memory: int = 1000, what="training") -> Measured:
    seconds = {n: 60 / speed for n, speed in enumerate(speeds, start=1)}
    return Measured(contender, what, 16, "ok", {}, 60, 6, seconds, [1000.0] * len(speeds), memory << 20)


def rows(*speeds: float, memory: int = 1200, what="training"):
    """The rows of none, at 10 tokens per second, and of alibi."""
    return rows_of(
        [measured(NONE, [10.0] * len(speeds), what=what), measured(ALIBI, list(speeds), memory, what)], "none"
    )


def test_a_record_has_what_was_measured_and_the_page_the_same(tmp_path):
    folder = tmp_path / "one"
    write_bench(folder, COMMAND, rows(8, 9, 10) + rows(5, 5, 5, what="evaluation"), NOTE)
    assert {path.name for path in folder.iterdir()} == {
        *("alibi.cpu.json", "none.cpu.json", "README.md", "bench.png", "bench.svg")
    }
    alibi, none = read_records(folder)
    assert (alibi["contender"], none["contender"]) == ("alibi", "none") and read_records(folder / "none.cpu.json") == [
        none
    ]
    assert alibi["components"] == ALIBI.components and alibi["settings"] == SETTINGS and alibi["commit"] == "c"
    training, evaluation = alibi["measurements"]
    wanted = {"tokens_per_second": 9.0, "ratio_to_none": 0.9, "mfu": 6 * 9 / 1000, "memory_to_none": 1.2}
    assert {key: training[key] for key in wanted} == pytest.approx(wanted)
    assert training["speeds"] == pytest.approx([8, 9, 10]) and evaluation["what"] == "evaluation"
    assert "2 w + 4 n_layer k d_model" in alibi["formulas"]["flops_per_token"]
    page = (folder / "README.md").read_text()
    assert "| alibi | – | – | 9 | 8 - 10 | 0.90 | 1,200 | 5% |" in page and "posexp bench" in page


def test_the_files_of_a_gpu_have_its_name(tmp_path):
    write_bench(tmp_path, COMMAND, rows(8), NOTE | {"device": "NVIDIA H200", "settings": SETTINGS | {"device": "cuda"}})
    assert (tmp_path / "alibi.nvidia-h200.json").is_file()
    assert file_name("x-transformers rotary, no flash") == "x-transformers-rotary-no-flash"


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        *[("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989), ("NVIDIA L40S", 362)],
        *[("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100-PCIE-40GB", 312), ("NVIDIA L4", 121)],
        *[("NVIDIA GeForce RTX 4090", 165), ("NVIDIA L40", None), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None)],
        ("Tesla T4", None),
    ],
)
def test_the_vendors_peak_is_found_by_the_name_of_the_gpu(name, tflops):
    assert vendor_peak(name) == (tflops and tflops * 1e12)


def test_a_share_of_the_vendors_peak_is_a_column_of_its_own():
    found = [measured(NONE, [10.0, 10.0, 20.0])]
    (row,) = rows_of(found, "none", vendor_flops=600.0)
    assert row["mfu"] == pytest.approx(0.06) and row["mfu_vendor"] == pytest.approx(0.1)
    (table,) = bench_tables([row])
    assert table.heads[-2:] == ["MFU", "MFU of vendor"] and table.rows[0][-2:] == ["6%", "10%"]
    (plain,) = bench_tables(rows_of(found, "none"))
    assert plain.heads[-1] == "MFU" and plain.rows[0][-1] == "6%"


def test_the_error_of_a_median_is_that_of_normal_noise():
    found = ratio(measured(ALIBI, [9.0, 10.0, 11.0, 10.0]), measured(NONE, [10.0] * 4))
    assert found == pytest.approx((1.0, 1.253 * 0.05 / 1.349 / 2))
    assert ratio(measured(ALIBI, [9.0]), measured(NONE, [10.0])) == pytest.approx((0.9, 0))
    assert ratio(measured(ALIBI, []), measured(NONE, [10.0])) == (None, None)


def recorded(folder: Path, *speeds: float, memory: int = 1200, **changes) -> dict:
    write_bench(folder, COMMAND, rows(*speeds, memory=memory), NOTE | changes)
    return baseline_of(str(folder), {"alibi": ALIBI.components, "none": NONE.components}, SETTINGS)


@pytest.mark.parametrize(
    ("speeds", "memory", "worse"),
    [
        ([9, 9, 9], 1200, []),
        ([8.6, 8.6, 8.6], 1310, []),  # 4.4 % slower, 9.2 % more memory
        ([12, 12, 12], 600, []),
        ([8.5, 8.5, 8.5], 1200, ["alibi, training at 16: speed -5.6%"]),
        ([7, 8.1, 9], 1200, []),  # 10 % slower, with rounds that differ by more
        ([9, 9, 9], 1400, ["alibi, training at 16: memory +16.7%"]),
    ],
)
def test_a_change_is_worse_beyond_its_tolerance(tmp_path, speeds, memory, worse):
    baseline = recorded(tmp_path, 9, 9, 9)
    table, found = compare(rows(*speeds, memory=memory), baseline, NOTE)
    assert found == worse
    assert [line[:2] for line in table.rows] == [["none", "training at 16"], ["alibi", "training at 16"]]


def test_memory_counts_from_64_mib_on(tmp_path):
    def small(memory: int):
        return rows_of([measured(NONE, [10.0], 100), measured(ALIBI, [9.0], memory)], "none")

    write_bench(tmp_path, COMMAND, small(120), NOTE)
    baseline = {record["contender"]: record for record in read_records(tmp_path)}
    assert compare(small(180), baseline, NOTE)[1] == []  # half more, 60 MiB
    assert compare(small(190), baseline, NOTE)[1] == ["alibi, training at 16: memory +58.3%"]


def test_what_can_no_longer_be_measured_is_worse(tmp_path):
    failed = replace(measured(ALIBI, []), status="out of memory", peak_memory=None)
    found = rows_of([measured(NONE, [10.0]), failed], "none")
    assert compare(found, recorded(tmp_path, 9, 9, 9), NOTE)[1] == ["alibi, training at 16: out of memory"]


def test_tokens_per_second_are_compared_on_one_kind_of_machine_alone(tmp_path):
    table, _ = compare(rows(18, 18, 18), recorded(tmp_path / "one", 9, 9, 9), NOTE)
    assert table.heads[-1] == "tokens/s" and table.rows[1][-1] == "+100.0%"
    table, _ = compare(rows(18, 18, 18), recorded(tmp_path / "two", 9, 9, 9, torch="3"), NOTE)
    assert table.heads[-1] == "change"


def test_a_baseline_of_another_measurement_says_what_differs(tmp_path):
    recorded(tmp_path, 9, 9, 9)
    for wanted, says in [
        ({"length": 32, "batch": 4}, "batch=2 (here 4); length=16 (here 32)"),
        ({"model.d_model": 64}, "model.d_model=32 (here 64)"),
        ({"device": "cuda"}, "device=cpu (here cuda)"),
        ({"model.later": 1}, "model.later=None (here 1)"),
    ]:
        with pytest.raises(Misuse) as caught:
            baseline_of(str(tmp_path), {"alibi": ALIBI.components}, SETTINGS | wanted)
        assert says in str(caught.value) and len(str(caught.value)) < 380
    for names in ({"rope": None}, {"alibi": {"scheme": {"_target_": "another"}}}):
        with pytest.raises(Misuse, match="lacks these contenders with these options: name a baseline"):
            baseline_of(str(tmp_path), names, SETTINGS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a measurement"),
        ("[]", "it is not an object"),
        ("{}", "it has no contender"),
        ('{"contender": 3}', "it has no contender"),
        ("measurements=[3]", "a measurement has no status"),
        ('measurements=[{"what": "training", "status": "ok"}]', "a measurement has no length"),
        (
            'measurements=[{"what": "", "status": "", "length": 1, "ratio_to_none": "1"}]',
            "ratio_to_none of a measurement",
        ),
    ],
)
def test_a_file_that_is_not_a_record_is_refused_in_one_line(tmp_path, text, says):
    if text.startswith("measurements="):
        record = {"contender": "a", "kind": "posexp", "device": "cpu", "settings": {}}
        text = json.dumps(record | {"measurements": json.loads(text.partition("=")[2])})
    (tmp_path / "a.cpu.json").write_text(text)
    for place in (tmp_path, tmp_path / "a.cpu.json"):
        with pytest.raises(Misuse) as caught:
            read_records(place)
        assert says in str(caught.value) and "a.cpu.json" in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_folder_is_no_baseline(tmp_path):
    with pytest.raises(Misuse, match="has no measurement of posexp bench"):
        read_records(tmp_path)


def test_every_published_bench_can_be_a_baseline():
    folders = [path for path in (ROOT / "results" / "bench").iterdir() if path.is_dir()]
    assert len(folders) >= 6
    for folder in folders:
        names = {record["contender"] for record in read_records(folder)}
        page = (folder / "README.md").read_text().replace("\\_", "_")
        assert "none" in names and all(f"| {name} |" in page for name in names)


def test_the_curves_of_a_study_are_contenders_once():
    found = [NONE]
    add_curves(found, str(ROOT / "results" / "studies" / "markov"))
    curves = {one.name: one for one in found}
    assert len(found) == len(curves) == 15
    assert curves["rnope_swa-ssmax"].window and curves["rnope_swa-ssmax"].temperature
    assert curves["none-gated_deltanet"].mixer and not curves["alibi"].window
    assert curves["alibi"].components == ALIBI.components


def test_a_curve_of_another_configuration_with_a_known_name_keeps_both():
    other = Contender("alibi", options_of("scheme", "alibi", {"share": 0.5}))
    found = [NONE, other]
    add_curves(found, str(ROOT / "results" / "studies" / "markov"))
    assert [one.name for one in found][:3] == ["none", "alibi", "alibi · markov"]
