"""The layouts of open models, as experiments: which block has positions, a window and a temperature."""

from pathlib import Path

import pytest
from support.command import TINY, here, run_of, write_texts

from posexp.config.commands import TrainCommand
from posexp.config.compose import compose
from posexp.config.overrides import settle
from posexp.dims import Dims
from posexp.errors import Misuse
from posexp.evaluation.rows import read_rows
from posexp.model.decoder import Decoder, build_model
from posexp.runs.run import Run
from posexp.schemes import build_scheme
from posexp.temperatures import Temperature

PRESETS = {  # window of the local blocks at a training length of 128, tokens from which the temperature acts
    "rnope_swa": ("sliding 64", None),
    "llama4": ("chunked 32", 32),
    "swan": ("sliding 64", 128),
}


def composed(*words: str) -> TrainCommand:
    found = compose("train", settle("train", list(words)))
    assert isinstance(found, TrainCommand)
    return found


def built(*words: str) -> Decoder:
    return build_model(composed(*words, "model.d_model=32", "model.n_head=2"), 50)


@pytest.mark.parametrize("n_layer", range(4, 9))
@pytest.mark.parametrize("name", PRESETS)
def test_every_fourth_block_is_global_without_positions(name: str, n_layer: int) -> None:
    model = built(f"+experiment={name}", f"model.n_layer={n_layer}")
    local, floor = PRESETS[name]
    for index in range(n_layer):
        part, window = model.scheme.layer(index), model.window.layer(index)
        everything = index % 4 == 3
        assert window.fingerprint() == ("full" if everything else local)
        assert part.reads_positions == (not everything)
        assert isinstance(part, Temperature) == (everything and floor is not None)
        assert floor is None or not everything or part.floor == floor


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("n_layer", [2, 3])
def test_fewer_blocks_have_a_global_one_on_request(name: str, n_layer: int) -> None:
    words = (f"+experiment={name}", f"model.n_layer={n_layer}")
    model = built(*words, "scheme.every=2", "window.every=2")
    assert not model.scheme.layer(1).reads_positions and model.window.layer(1).full
    if PRESETS[name][1] is None:
        assert "no block has NoPositions" in built(*words).scheme.notes()[0]
    else:
        with pytest.raises(Misuse, match="or a smaller"):
            built(*words)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("word", ["window=full", "window=sliding", "scheme=rope"])
def test_a_component_without_the_options_that_a_preset_sets_is_refused_in_a_line(name, word, tmp_path) -> None:
    write_texts(tmp_path / "text")
    line = here("train", f"+experiment={name}", word, *TINY, "model.n_layer=4", cwd=tmp_path).refusal()
    kind = word.partition("=")[0]
    assert "has no option 'every'" in line or f"experiment/{name} sets options of the {kind}" in line, line
    assert f"keep the {kind} that it chooses" in line or f"leave out {kind}=…" in line, line
    assert not (tmp_path / "results").exists()


def test_a_preset_goes_with_another_experiment_in_any_order() -> None:
    for names in ("demo,llama4", "llama4,demo"):
        found = composed(f"+experiment=[{names}]", "train.length=64")
        assert (found.label, found.group, found.train.length, found.model.d_model) == ("llama4", "demo", 64, 96)
        assert found.window["inner"]["_target_"].endswith("Chunked")


def test_what_the_command_chooses_beside_a_preset_is_in_the_label() -> None:
    assert composed("+experiment=rnope_swa").label == "rnope_swa"
    assert composed("+experiment=rnope_swa", "temperature=ssmax").label == "rnope_swa-ssmax"
    assert composed("+experiment=rnope_swa", "scheme=none").label == "rnope_swa-none"
    assert composed("+experiment=llama4", "temperature=none").label == "llama4-none"
    assert composed("+experiment=rnope_swa", "temperature=none").label == "rnope_swa"  # it has no temperature
    assert composed("+experiment=swan", "temperature=none").temperature is None
    assert composed("+experiment=swan", "temperature=ssmax").temperature["everywhere"] is False
    assert composed("+scheme=rope", "temperature=ssmax", "window=sliding").label == "rope-sliding-ssmax"


def test_an_unknown_experiment_of_a_list_is_named(tmp_path: Path) -> None:
    refused = here("train", "+experiment=[demo,swn]", cwd=tmp_path).refusal()
    assert "no experiment 'swn', did you mean 'swan'?" in refused


def test_a_temperature_is_part_of_a_runs_name_and_none_is_not() -> None:
    plain, hot, none = (
        composed("+scheme=rope", *more, "label=x") for more in ([], ["temperature=logn"], ["temperature=none"])
    )
    assert Run.of(plain).name == Run.of(none).name != Run.of(hot).name


def test_a_scheme_with_every_block_of_one_kind_has_no_note() -> None:
    assert build_scheme("alternate", Dims(32, 4, 2, 64)).notes() == []


@pytest.mark.slow
def test_presets_are_trained_in_a_sweep_and_evaluated_at_four_times_the_length(tmp_path: Path) -> None:
    write_texts(tmp_path / "text")
    words = ["train", "-m", "+experiment=rnope_swa,llama4,swan", *TINY, "model.n_layer=4", "--lengths", "16,64"]
    answer = here(*words, cwd=tmp_path)
    assert answer.code == 0, answer.err
    for name in PRESETS:
        rows = read_rows(Run(run_of(tmp_path, name)), print)
        assert {row.length for row in rows if row.status == "ok"} >= {16, 64}
    again = here("eval", "--lengths", "16,64", "+transform=logn", "wandb.mode=disabled", cwd=tmp_path)
    assert "has a temperature already" in again.err + again.out  # llama4 and swan; rnope_swa has new rows
    assert here("inspect", "llama4*", cwd=tmp_path).code == 0
