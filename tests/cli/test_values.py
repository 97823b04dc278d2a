"""Text stays as it is typed and counts may be short, on the command line, in sweeps, in YAML and in stored configs."""

from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from support.command import TINY, here, write_texts

from posexp.config.commands import TrainCommand
from posexp.config.compose import compose
from posexp.config.digest import digest
from posexp.config.overrides import count, option_names, settle
from posexp.config.stored_yaml import yaml_of
from posexp.config.values import flat, plain_value, typed_value
from posexp.runs.run import Run, values_of


def composed(folder: Path, *words: str) -> dict:
    answer = here(*words, "--cfg", "job", cwd=folder)
    assert answer.code == 0, answer.err
    return yaml.safe_load(answer.out)


ODD = [
    "2024_11_28",
    "1e3",
    "12345e67",
    "0x10",
    "1_000",
    "007",
    "true",
    "False",
    "on",
    "null",
    "nan",
    "2024-11-28",
    "1.0",
]


@pytest.mark.parametrize("text", ODD)
def test_text_is_what_was_typed_however_hydra_would_read_it(text):
    parser = OverridesParser.create()
    words = [f"label={text}", f"+data.revision='{text}'", f'hf="{text}"', f"data.paths=[{text},b]", f"group={text},c"]
    first, revision, hf, paths, sweep = parser.parse_overrides(settle("eval", settle("train", words)))
    assert [first.value(), revision.value(), hf.value()] == [text] * 3
    assert paths.value() == [None if text == "null" else text, "b"]
    cells = [parser.parse_override(f"group={word}").value() for word in sweep.sweep_string_iterator()]
    assert cells == [text, "c"]


def test_text_typed_for_a_command_is_stored_as_it_was_typed(tmp_path):
    typed = {"label": "1e3", "group": "2024_11_28", "results": "0x10", "wandb.project": "true", "data.field": "1_000"}
    made = composed(tmp_path, "train", "+scheme=rope", *(f"{key}={text}" for key, text in typed.items()))
    assert flat(made) | typed == flat(made)
    made = composed(tmp_path, "eval", "data=hub", "data.revision=12345e67", "hf=1e3", "eval.protocols=[1_0]")
    assert (made["data"]["revision"], made["hf"], made["eval"]["protocols"]) == ("12345e67", "1e3", ["1_0"])


def test_null_is_none_where_an_option_may_be_left_out():
    words = ["data.store=null", "data.paths=null", "wandb.entity=null", "data.subset=null", "label=null"]
    assert settle("train", words) == [*words[:3], "data.subset=''", "label='null'"]


EXPERIMENT = """# @package _global_
group: 2024_11_28
label: on
data: {revision: 1e3, paths: [1_0, b], valid: 12:30:30, field: 0x10}
train: {tokens: 1e6, batch_tokens: 2.048k, lr: 1e-3}
eval: {lengths: [1k, 2_000]}
"""


def test_text_and_counts_in_a_config_of_the_users(tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "scheme").mkdir()
    (tmp_path / "mine" / "experiment" / "e.yaml").write_text(EXPERIMENT)
    (tmp_path / "mine" / "scheme" / "1e3.yaml").write_text("_target_: posexp.schemes.rope.Rope\nbase: 10_000\n")
    made = composed(tmp_path, "train", "--config-dir", "mine", "+experiment=e", "+scheme=1e3")
    assert (made["group"], made["label"]) == ("2024_11_28", "on")
    data = {key: made["data"][key] for key in ("revision", "paths", "valid", "field")}
    assert data == {"revision": "1e3", "paths": ["1_0", "b"], "valid": "12:30:30", "field": "0x10"}
    assert (made["train"]["tokens"], made["train"]["batch_tokens"], made["train"]["lr"]) == (1_000_000, 2048, 0.001)
    assert made["eval"]["lengths"] == [1000, 2000] and made["scheme"]["base"] == 10_000


@pytest.mark.slow
def test_text_in_sweeps_and_in_what_is_stored_and_read_again(tmp_path):
    write_texts(tmp_path / "text")
    (tmp_path / "mine" / "scheme").mkdir(parents=True)
    (tmp_path / "mine" / "experiment").mkdir()
    (tmp_path / "mine" / "scheme" / "1e3.yaml").write_text(
        "_target_: posexp.schemes.rope.Rope\nbase: 10.0\nfraction: 1.0\nlayout: half\n"
    )
    (tmp_path / "mine" / "experiment" / "e.yaml").write_text(
        "# @package _global_\nhydra: {sweeper: {params: {data.field: 'text,1_0'}}}\n"
    )
    words = [*TINY, "train.tokens=0.512k", "group=2024_11_28,1e3", "+scheme=1e3", "+experiment=e", "--lengths", "8"]
    assert here("train", "-m", "--config-dir", "mine", *words, cwd=tmp_path).code == 0
    stored = [yaml_of(path.read_bytes()) for path in tmp_path.glob("results/*/*/config.yaml")]
    cells = {(made["group"], made["label"], made["data"]["field"], made["train"]["tokens"]) for made in stored}
    assert cells == {(group, "1e3", name, 512) for group in ("2024_11_28", "1e3") for name in ("text", "1_0")}
    assert "1e3: 2 runs, 2 done" in here("runs", "--group", "1e3", cwd=tmp_path).out
    folder = next(tmp_path.glob("results/2024_11_28/*/config.yaml")).parent
    text = (folder / "config.yaml").read_text().partition("#")[0]
    (folder / "config.yaml").write_text(text.replace("'2024_11_28'", "2024_11_28").replace("'1e3'", "1e3"))
    assert Run(folder).config().group == "2024_11_28" and Run(folder).config().label == "1e3"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e6", 1_000_000), ("10M", 10_000_000), ("2.5M", 2_500_000), ("512k", 512_000), ("512K", 512_000)),
        *(("1E6", 1_000_000), ("1e+6", 1_000_000), ("1_0.5k", 10_500), ("-1k", -1000), ("1B", 10**9), ("1.5e1", 15)),
        *(("1.5", None), ("1.0", None), ("1e-6", None), ("1.2345k", None), ("1m", None), ("k", None), ("1e600", None)),
        *(("10", None), ("1:1", None), ("0x1k", None), ("1.5e0", None), ("", None)),
    ],
)
def test_counts_are_written_short(text, value):
    assert count(text) == value


@pytest.mark.slow
def test_a_short_count_is_stored_as_the_number_it_is(tmp_path):
    words = ["+scheme=rope", "label=x", "train.length=0.1k"]
    long = composed(tmp_path, "train", *words, "train.tokens=2500000", "train.batch_tokens=1000", "eval.targets=1000")
    for short in ("'2.5M'", "25e5"):
        made = composed(tmp_path, "train", *words, f"train.tokens={short}", "train.batch_tokens=1e3", "eval.targets=1k")
        assert made == long and type(made["train"]["tokens"]) is int
    lengths = composed(tmp_path, "train", *words, "--lengths", "1k,2e3,512")["eval"]["lengths"]
    assert lengths == [1000, 2000, 512]


@pytest.mark.parametrize("word", ["train.tokens=1.5", "eval.lengths=[1.5k,x]"])
def test_what_is_no_whole_number_is_refused(tmp_path, word):
    assert word.partition("=")[0] in here("train", "+scheme=rope", word, cwd=tmp_path).refusal()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["scheme=[rope,alibi]"], "a run has one scheme: to train each, type -m +scheme=rope,alibi"),
        (["-m", "+scheme=[rope, alibi]"], "a run has one scheme: to train each, type -m +scheme=rope,alibi"),
        (
            ["+scheme=rope", "window=[full,sliding]"],
            "a run has one window: to train each, type -m +window=full,sliding",
        ),
        (["+scheme=rope,alibi"], "names several values: add -m to run each"),
    ],
)
def test_a_list_of_choices_is_refused_with_how_to_sweep(tmp_path, words, says):
    refused = here("train", *words, cwd=tmp_path).refusal()
    assert refused.endswith(says)


def test_no_name_is_of_text_in_one_place_and_a_number_in_another():
    assert not option_names(str) & option_names(int)
    assert {"label", "paths", "revision", "hf", "curves"} <= option_names(str)
    assert {"tokens", "lengths", "targets", "seed"} <= option_names(int)


def test_digests_are_as_they_were():
    node = {"_target_": "posexp.schemes.rope.Rope", "base": 10000.0, "fraction": 1.0, "layout": "half"}
    assert digest(TrainCommand(scheme=node, label="rope")) == "e56bfec4"


def test_a_stored_configuration_is_read_without_omegaconf():
    """OmegaConf converts what has another type than its option, in a hundred times the time."""
    config = compose("train", ["scheme=rope", "data=markov"])
    values = values_of(OmegaConf.to_yaml(OmegaConf.create(plain_value(config))))
    assert typed_value(TrainCommand, values) == config
