"""Checkpoints that transformers loads: their losses are its own, and what they cannot do is said."""

import html
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.spans import token_losses

pytest.importorskip("transformers")

from support.checkpoints import V, checkpoint, own_losses, reference, slid, whole
from support.command import here, posexp, world, write_texts
from support.rows import stored_losses

from posexp.config.commands import EvalCommand
from posexp.config.sections import DataConfig, Precision, Source, Split
from posexp.data import tokenizer
from posexp.evaluation.evaluate import Evaluator
from posexp.evaluation.interfaces import Subject
from posexp.evaluation.plan import plan
from posexp.evaluation.targets import targets_of
from posexp.hf.model import CausalLM, load_causal_lm, position_limit, whole_logits
from posexp.hf.source import find_source
from posexp.hf.subject import Checkpoint
from posexp.schemes.p_rope import highest_frequencies
from posexp.schemes.rope import rotary_frequencies
from posexp.transforms import NotApplicable

CPU = torch.device("cpu")
IDS = np.random.default_rng(0).integers(0, V, 3 * 2048 + 1)
WORDS = ["data=files", "data.paths=text", "data.cache=cache", "wandb.mode=disabled"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return lambda name: checkpoint(root, name)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_texts(folder / "text")
    return folder


def losses(model, windows: np.ndarray) -> np.ndarray:
    return token_losses(model, IDS, windows, 4096, CPU, Precision.float32)


def wrapped(folder: Path) -> CausalLM:
    return CausalLM(load_causal_lm(find_source(str(folder)), trust=False))


def opened(folder: Path, text: Path, **knobs) -> Subject:
    data = DataConfig(source=Source.files, paths=str(text / "text"), cache=str(text / "cache"))
    return Checkpoint(EvalCommand(hf=str(folder), data=data, results=str(text / "results"), **knobs), CPU)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt-neox", "bloom", "mpt", "mistral", "mistral-sliding", "qwen2"])
def test_token_losses_are_those_of_transformers_at_every_length(made, name):
    own = reference(made(name), **({"max_seq_len": 4096} if name == "mpt" else {}))
    model = wrapped(made(name))
    assert model.max_length == (2048 if name == "gpt2" else None)
    for windows in (whole(128), whole(512), whole(2048, 1), slid(512, 128)):
        expected = own_losses(own, IDS, windows)
        assert expected.std() > 0.5, "far from uniform, so that a difference would show"
        assert np.abs(losses(model, windows) - expected).max() < 1e-5


@pytest.mark.parametrize(("name", "width"), [("llama", 32), ("gemma2", 32), ("cohere", 32), ("roberta", V)])
def test_what_an_architecture_does_after_its_output_layer_counts(made, name, width):
    model, own = wrapped(made(name)), reference(made(name))
    assert np.abs(losses(model, whole(64)) - own_losses(own, IDS, whole(64))).max() < 1e-5
    assert model(torch.from_numpy(IDS[None, :9])).shape[-1] == width, "logits are only made where they are scored"


@pytest.mark.parametrize(
    ("name", "limit"), [("gpt2-short", 128), ("gptj", 128), ("gpt-neo", 128), ("opt", 128), ("roberta", 128)]
)
def test_a_table_of_positions_ends_where_transformers_fails(made, name, limit):
    model = reference(made(name))
    tokens = torch.from_numpy(IDS[None] % (V - 2) + 2)  # none that RoBERTa takes for padding
    assert position_limit(model) == limit
    model(input_ids=tokens[:, :limit])
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=tokens[:, : limit + 1])


def test_a_token_of_a_sliding_window_counts_itself(made):
    windowed, full = reference(made("mistral-one"), sliding_window=24), reference(made("mistral-one"))
    each = np.array([[n, n + 24, n + 25] for n in range(40)])  # one block: no token sees further through another
    expected = own_losses(full, IDS, each)
    assert own_losses(windowed, IDS, np.array([[0, 24, 64]])) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_the_window_control_cuts_attention_to_the_training_length(made, text, name):
    subject = opened(made(name), text, train_length=40)
    (plain,) = subject.variants(EvalCommand())
    assert subject.view(plain, 512).window == "full"
    cut = subject.cut(plain)
    assert cut is not None and subject.cut(cut) is None
    view = subject.view(cut, 512)
    assert view.window == "sliding 40"
    changes = {"sliding_window": 40}
    if name == "qwen2":
        changes |= {"use_sliding_window": True, "layer_types": ["sliding_attention"] * 2}
    found, full = losses(view.model, whole(300)), losses(subject.view(plain, 512).model, whole(300))
    assert np.abs(found - own_losses(reference(made(name), **changes), IDS, whole(300))).max() < 1e-5
    assert np.abs(found - full)[:40].max() < 1e-5 and np.abs(found - full)[41:300].max() > 0.1
    shared = {weight.data_ptr() for weight in subject.view(plain, 512).model.parameters()}
    assert {weight.data_ptr() for weight in view.model.parameters()} == shared, "the weights are there once"


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "mpt", "gemma2", "mistral-sliding"])
def test_no_window_control_where_the_config_knows_none_or_has_one_already(made, text, name):
    subject = opened(made(name), text, train_length=40)
    (plain,) = subject.variants(EvalCommand())
    assert subject.cut(plain) is None
    names = {"gemma2": "sliding 24 in 1 of 2 blocks", "mistral-sliding": "sliding 24"}
    assert subject.about["trained_window"] == names.get(name, "full")


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("gpt-neo", "sliding 16 in 1 of 2 blocks"),
        ("llama4", "chunked 16 in 1 of 2 blocks"),
        ("recurrent", "sliding 24 in 1 of 3 blocks"),
        ("wide", "full"),
    ],
)
def test_a_window_is_named_as_the_architecture_computes_it(made, text, name, window):
    subject = opened(made(name), text, train_length=64)
    (plain,) = subject.variants(EvalCommand())
    assert (subject.about["trained_window"], subject.view(plain, 64).window) == (window, window)
    longer = {"wide": "sliding 100"}.get(name, window)
    assert subject.view(plain, 256).window == longer, "past its size, a window that is longer than training hides"


def test_a_window_longer_than_training_is_cut_by_the_control(made, text):
    subject = opened(made("wide"), text)
    (plain,) = subject.variants(EvalCommand())
    cut = subject.cut(plain)
    assert cut is not None and subject.view(cut, 128).window == "sliding 64"
    within, past = (losses(subject.view(plain, n).model, whole(n)) for n in (100, 200))
    opened_up = reference(made("wide"), sliding_window=None)
    assert np.abs(within - own_losses(opened_up, IDS, whole(100))).max() < 1e-5
    assert np.abs(past - own_losses(opened_up, IDS, whole(200))).max() > 0.01
    (seen,) = subject.variants(EvalCommand(window={"_target_": "posexp.windows.Window"}))
    full = subject.view(seen, 200)
    assert full.window == "full"
    assert np.abs(losses(full.model, whole(200)) - own_losses(opened_up, IDS, whole(200))).max() < 1e-5


class TableOfItsOwn(torch.nn.Module):
    """A model of transformers with a learned table of 96 positions that it alone has a name for."""

    def __init__(self, model, slices: bool):
        super().__init__()
        self.model, self.config, self.slices, self.device = model, model.config, slices, CPU
        self.places = torch.nn.Embedding(96, 32)

    def forward(self, input_ids):
        T = input_ids.shape[1]
        where = self.places.weight[:T] if self.slices else self.places(torch.arange(T))[None]
        return self.model(inputs_embeds=self.model.get_input_embeddings()(input_ids) + where)


@pytest.mark.parametrize("slices", [False, True])
def test_a_table_of_positions_is_found_under_any_name(made, slices):
    model = TableOfItsOwn(reference(made("bloom")), slices)
    assert position_limit(model) == 96 and position_limit(model.model) is None
    whole_logits(model, torch.from_numpy(IDS[None, :96]))
    with pytest.raises((IndexError, RuntimeError)):
        whole_logits(model, torch.from_numpy(IDS[None, :97]))


def transformed(subject: Subject, name: str, length: int, **options):
    from posexp.config.components import options_of

    _, variant = subject.variants(EvalCommand(transform={name: options_of("transform", name, options)}))
    return subject.view(variant, length)


SCALED = {"rope_theta": 10000.0, "factor": 4.0}
TRAINED = {"original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("name", "options", "equal"),
    [
        ("pi", {}, {**SCALED, "rope_type": "linear"}),
        ("ntk", {}, {"rope_type": "default", "rope_theta": 10000.0 * 4 ** (16 / 14)}),
        ("dynamic_ntk", {"factor": 4.0}, {**SCALED, "rope_type": "dynamic"}),
        ("yarn", {}, {**SCALED, **TRAINED, "rope_type": "yarn"}),
        ("llama3", {}, {**SCALED, **TRAINED, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ("yarn", {"truncate": False}, {**SCALED, **TRAINED, "rope_type": "yarn", "truncate": False}),
        ("p_rope", {"p": 0.7}, {"rope_theta": 10000.0, "rope_type": "proportional", "partial_rotary_factor": 0.7}),
        ("base", {"base": 5e5}, {"rope_type": "default", "rope_theta": 5e5}),
        (
            "longrope",
            {"short": [1.0 + n / 9 for n in range(8)], "long": [2.0 + n for n in range(8)]},
            {
                **{**SCALED, **TRAINED, "rope_type": "longrope"},
                "short_factor": [1.0 + n / 9 for n in range(8)],
                "long_factor": [2.0 + n for n in range(8)],
            },
        ),
    ],
)
def test_a_transform_is_the_rope_parameters_of_transformers(made, text, name, options, equal):
    subject = opened(made("llama"), text)
    assert subject.train_length == 64
    view = transformed(subject, name, 256, **options)
    plain = losses(subject.view(subject.variants(EvalCommand())[0], 256).model, whole(256))
    for length in (256, 48, 100):  # also shorter inputs, after longer ones
        own = reference(made("llama"), rope_parameters=equal)
        found = losses(view.model, whole(length))
        assert np.abs(found - own_losses(own, IDS, whole(length))).max() < 1e-5
    assert np.abs(losses(view.model, whole(256)) - plain).max() > 0.01


def test_a_factor_left_out_is_the_evaluated_length_over_the_training_length(made, text):
    subject = opened(made("llama"), text)
    assert transformed(subject, "yarn", 512).settings == "yarn(factor=8, beta_fast=32, beta_slow=1)"
    equal = {"rope_theta": 10000.0, "factor": 8.0, "rope_type": "yarn", **TRAINED}
    own = reference(made("llama"), rope_parameters=equal)
    view = transformed(subject, "yarn", 512)
    assert np.abs(losses(view.model, whole(512)) - own_losses(own, IDS, whole(512))).max() < 1e-5


@pytest.mark.parametrize("name", ["dynamic_ntk", "yarn"])
def test_a_transform_goes_by_the_training_length_that_is_given(made, text, name):
    subject = opened(made("llama"), text, train_length=32)
    equal = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32, "rope_type": "yarn"}
    if name == "dynamic_ntk":
        equal = {"rope_theta": 10000.0, "factor": 4.0, "rope_type": "dynamic"}
    own = reference(made("llama"), rope_parameters=equal, max_position_embeddings=32)
    view = transformed(subject, name, 128, factor=4.0)
    assert np.abs(losses(view.model, whole(128)) - own_losses(own, IDS, whole(128))).max() < 1e-5


@pytest.mark.parametrize(
    ("checkpoint_name", "name", "says"),
    [
        ("llama", "logn", "has no equivalent in transformers"),
        ("llama", "rerope", "has no equivalent in transformers"),
        ("gpt2", "yarn", "GPT2Config has no rotary frequencies"),
        ("bloom", "pi", "BloomConfig has no rotary frequencies"),
    ],
)
def test_a_transform_without_an_equivalent_does_not_apply(made, text, checkpoint_name, name, says):
    subject = opened(made(checkpoint_name), text, train_length=64)
    with pytest.raises(NotApplicable, match=says):
        transformed(subject, name, 256)


@pytest.mark.parametrize(
    ("checkpoint_name", "name", "says"),
    [
        ("falcon", "yarn", "FalconForCausalLM gives the same logits with other rotary frequencies"),
        ("granite", "pi", "GraniteMoeHybridForCausalLM gives the same logits"),
        ("falcon", "dynamic_ntk", "nothing to change"),
        ("recurrent", "yarn", "transformers rejects it for RecurrentGemmaForCausalLM: .*does not support RoPE types"),
        ("pair", "dynamic_ntk", "one pair of channels is rotated"),
        ("pair", "ntk", "one pair of channels is rotated"),
        ("gpt-neox", "p_rope", "a part of each head is rotated"),
        ("gptj", "yarn", "the rotary frequencies of GPTJConfig are set in code"),
    ],
)
def test_a_transform_that_changes_no_logit_or_is_refused_does_not_apply(made, text, checkpoint_name, name, says):
    with pytest.raises(NotApplicable, match=says):
        transformed(opened(made(checkpoint_name), text, train_length=64), name, 256)


@pytest.mark.parametrize(
    ("name", "options", "length"), [("pi", {}, 64), ("yarn", {"factor": 1.0}, 256), ("base", {"base": 1e4}, 256)]
)
def test_a_transform_that_says_to_change_nothing_applies(made, text, name, options, length):
    for checkpoint_name in ("llama", "falcon") if options else ("llama",):
        subject = opened(made(checkpoint_name), text, train_length=64)
        plain = subject.view(subject.variants(EvalCommand())[0], length)
        found = transformed(subject, name, length, **options)
        assert losses(found.model, whole(length)) == pytest.approx(losses(plain.model, whole(length)), abs=1e-6)


def test_mixtral_is_told_the_channels_of_its_heads(made, text):
    subject = opened(made("mixtral"), text)
    equal = {**SCALED, **TRAINED, "rope_type": "yarn", "rope_theta": 1e6}  # Mixtral's own base
    own = reference(made("mixtral"), head_dim=16, rope_parameters=equal)
    found = losses(transformed(subject, "yarn", 256).model, whole(256))
    assert np.abs(found - own_losses(own, IDS, whole(256))).max() < 1e-5


@pytest.mark.parametrize("p", [0.3, 0.5, 0.75, 1.0])
def test_p_rope_in_transformers_has_the_frequencies_of_posexp(made, text, p):
    view = transformed(opened(made("llama"), text), "p_rope", 256, p=p)
    (rotary,) = (module for module in view.model.modules() if hasattr(module, "inv_freq"))
    expected = highest_frequencies(rotary_frequencies(16, 10000.0), p)
    torch.testing.assert_close(rotary.inv_freq, expected, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_transforms_that_do_not_apply_take_no_rows_along(made, text, tmp_path):
    words = ["eval", "--lengths", "64,128", f"hf={made('recurrent')}", *WORDS, "eval.protocols=[nonoverlapping]"]
    answer = here(*words, "train_length=64", "+transform=yarn,ntk", f"results={tmp_path}", cwd=text)
    assert answer.code == 0, answer.err
    assert "transform yarn does not apply: transformers rejects it for RecurrentGemmaForCausalLM" in answer.err
    assert "nonoverlapping 64: ntk(factor=1) changes nothing: losses equal those without it" in answer.err
    assert "ntk(factor=2) changes nothing" not in answer.err
    (path,) = tmp_path.glob("default/hf-*/rows.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((row["transform"], row["length"]) for row in rows) == [("", 64), ("", 128), ("ntk", 64), ("ntk", 128)]


def test_frequencies_are_rescaled_once(made, text, tmp_path):
    folder = altered(made("llama"), tmp_path, rope_parameters={**SCALED, **TRAINED, "rope_type": "yarn"})
    subject = opened(folder, text)
    with pytest.raises(NotApplicable, match=r"rescaled already \(yarn\)"):
        transformed(subject, "pi", 256)
    assert transformed(subject, "base", 256).settings == "base(500000)"


def altered(folder: Path, into: Path, **changes) -> Path:
    """A copy of a checkpoint with changes to its config.json; None takes a key away."""
    copied = Path(shutil.copytree(folder, into / "altered"))
    config = json.loads((copied / "config.json").read_text()) | changes
    (copied / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return copied


@pytest.mark.parametrize(
    ("name", "changes", "length"),
    [
        ("gpt2-short", {}, 128),
        ("mpt", {}, 64),
        ("bloom", {"seq_length": 2048}, 2048),
        ("phi3", {"original_max_position_embeddings": None}, 64),
        ("llama", {"max_position_embeddings": 256, "rope_parameters": {**SCALED, **TRAINED, "rope_type": "yarn"}}, 64),
    ],
)
def test_the_training_length_is_what_the_config_says(made, text, tmp_path, name, changes, length):
    assert opened(altered(made(name), tmp_path, **changes), text).train_length == length
    assert opened(altered(made(name), tmp_path / "again", **changes), text, train_length=9).train_length == 9


def test_a_model_without_attention_is_evaluated_too(made, text):
    """A state-space model has no heads, no positions and no window."""
    subject = opened(made("mamba"), text, train_length=64)
    (plain,) = subject.variants(EvalCommand())
    view = subject.view(plain, 200)
    expected = own_losses(reference(made("mamba")), IDS, whole(200))
    assert np.abs(losses(view.model, whole(200)) - expected).max() < 1e-5
    assert subject.cut(plain) is None and view.max_length is None and view.window == "full"
    with pytest.raises(NotApplicable, match="MambaConfig has no rotary frequencies"):
        transformed(subject, "yarn", 256)


def test_without_a_training_length_the_shortest_length_asked_for_counts(made, text, capsys):
    assert opened(made("bloom"), text, eval={"lengths": [96, 48]}).train_length == 48
    assert "its config does not state the training length, 48 is assumed: set train_length=" in capsys.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_like_a_run(made, tmp_path_factory, tmp_path):
    folder = world(tmp_path_factory, tmp_path)
    words = ["eval", "--lengths", "64,128,256", f"hf={made('gpt2-short')}", *WORDS]
    answer = here(*words, cwd=folder)
    assert answer.code == 0, answer.err
    assert "Loading" not in answer.err and "[transformers]" not in answer.err, answer.err
    (run,) = (folder / "results" / "default").glob("hf-gpt2-short-*")
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    assert {row["status"] for row in rows if row["length"] > 128} == {"undefined"}
    assert {row["status"] for row in rows if row["length"] <= 128} == {"ok"}
    assert {(row["scheme"], row["train_length"], row["kernel_path"]) for row in rows} == {
        ("gpt2-short", 128, "transformers sdpa")
    }
    assert all(row["bits_per_byte"] for row in rows if row["status"] == "ok")
    about = json.loads((run / "checkpoint.json").read_text())
    assert about["class"] == "GPT2LMHeadModel" and about["max_length"] == about["train_length"] == 128
    again = here(*words, cwd=folder)
    assert again.code == 0 and "all 64, 128, 256 measured already" in again.err

    assert "checkpoint" in here("runs", cwd=folder).out
    table = here("report", "--html", "--all", cwd=folder)
    assert table.code == 0 and "gpt2-short" in table.out and "rope" in table.out and "learned" in table.out
    card = card_of(folder, run.name)
    assert "gpt2-short" in card and "seed 0" in card
    config, provenance = card.split("Provenance")
    assert f"sha256: {about['sha256']}" in provenance
    assert 'class: "GPT2LMHeadModel"' in config and "sha256" not in config
    (run / "checkpoint.json").write_text("{")
    table = here("report", "--html", "--all", cwd=folder)
    assert table.code == 0 and f"{run.name}/checkpoint.json cannot be read" in table.err
    assert '<span class="same">' not in card_of(folder, run.name).split("Configuration")[1]
    others = here("eval", "--lengths", "8,16,64", "wandb.mode=disabled", cwd=folder)
    assert others.code == 0 and "hf-" not in others.err, "runs of posexp's own are what eval means without hf="
    for command in ("inspect", "export"):
        refused = here(command, run.name, cwd=folder).refusal()
        assert f"{run.name} is a checkpoint from elsewhere, not a run that posexp trained" in refused


@pytest.mark.slow
def test_the_same_weights_with_an_edited_config_are_another_model(made, tmp_path_factory, tmp_path):
    folder = world(tmp_path_factory, tmp_path)
    shutil.copytree(made("llama"), folder / "ck")
    words = ["eval", "--lengths", "64", "hf=ck", *WORDS]
    assert here(*words, cwd=folder).code == 0
    config = json.loads((folder / "ck" / "config.json").read_text())
    said = config | {"_name_or_path": "elsewhere", "transformers_version": "5.99"}
    (folder / "ck" / "config.json").write_text(json.dumps(said))
    assert "measured already" in here(*words, cwd=folder).err, "where it lay, and who saved it, changes nothing"
    for key in ("rope_theta", "rms_norm_eps"):
        (folder / "ck" / "config.json").write_text(json.dumps(config | {key: 0.5, "rope_parameters": None}))
        answer = here(*words, cwd=folder)
        assert answer.code == 0 and "measured already" not in answer.err, key
    runs = (folder / "results" / "default").glob("hf-ck-*")
    rows = [json.loads((run / "rows.jsonl").read_text().splitlines()[0]) for run in runs]
    assert len(rows) == 3 == len({row["nll"] for row in rows})


def card_of(folder: Path, run: str) -> str:
    """What the page tells of a run."""
    page = (folder / "results" / "default" / "report" / "page.html").read_text()
    (card,) = [card for card in re.findall("<details>.*?</details>", page, re.DOTALL) if run in card]
    return html.unescape(card)


def test_without_a_tokenizer_json_one_is_made_of_the_other_files(made, text, tmp_path):
    folder = Path(shutil.copytree(made("llama"), tmp_path / "llama"))
    layout = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(layout["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    ids = opened(folder, text).tokens.ids
    assert (np.asarray(ids) == np.asarray(opened(made("llama"), text).tokens.ids)).all()


def beginning(made, into: Path, **says) -> Path:
    """A checkpoint whose tokenizer knows <bos>, and `says` of it what tokenizer_config.json holds."""
    from tokenizers.processors import TemplateProcessing

    folder = Path(shutil.copytree(made("llama-more"), into))
    own = tokenizer.single_bytes()
    own.add_special_tokens(["<bos>"])
    if says.get("add_bos_token"):
        own.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", V)])
    own.save(str(folder / "tokenizer.json"))
    says = {"tokenizer_class": "PreTrainedTokenizerFast", **says}
    (folder / "tokenizer_config.json").write_text(json.dumps(says))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("says", "asked", "bos"),
    [
        ({"bos_token": "<bos>", "add_bos_token": True}, "auto", V),
        ({"bos_token": "<bos>", "add_bos_token": True}, False, None),
        ({"bos_token": "<bos>"}, "auto", None),
        ({"bos_token": "<bos>"}, True, V),
        ({}, "auto", None),
    ],
)
def test_windows_begin_with_the_token_that_the_tokenizer_begins_texts_with(made, text, tmp_path, says, asked, bos):
    folder = beginning(made, tmp_path / "ck", **says)
    subject = opened(folder, text, bos=asked, eval={"lengths": [64], "targets": 64, "protocols": ["nonoverlapping"]})
    assert subject.tokens.bos == bos and subject.about["bos"] == ("" if bos is None else "<bos>")
    evaluator = Evaluator(subject, CPU)
    (row,) = evaluator.rows(evaluator.jobs(subject.variants(EvalCommand())[0]))
    (windows,) = (row.windows for row in plan(subject.tokens, subject.eval, [64]))
    expected = []
    for start, first, stop in windows[:20].tolist():
        ids = np.array(subject.tokens.ids[start:stop])
        ids[0] = ids[0] if bos is None else bos
        expected.append(own_losses(reference(folder), ids, np.array([[0, first - start, stop - start]])))
    kept = stored_losses(subject.run.folder, row.values())
    assert np.abs(kept.nll[: 20 * 64] - np.concatenate(expected)).max() < 1e-5
    assert (kept.context == targets_of(windows)[1]).all(), "the token is one of the window's"


@pytest.mark.slow
def test_rows_with_and_without_a_beginning_token_lie_apart_and_the_first_line_says_which(made, text, tmp_path):
    beginning(made, tmp_path / "ck", bos_token="<bos>", add_bos_token=True)
    words = ["eval", "--lengths", "16", f"hf={tmp_path}/ck", *WORDS, f"results={tmp_path}/results"]
    words.append("eval.protocols=[nonoverlapping,rolling]")
    said = [here(*words, *more, cwd=text) for more in ([], ["hf.bos=false"], ["hf.bos=true"])]
    assert all(answer.code == 0 for answer in said), said
    first = [answer.err.splitlines()[0].partition("/ck: ")[2] for answer in said]
    assert first == [
        "every input begins with the special token <bos> (BOS), the default of the tokenizer",
        "inputs begin without a BOS, hf.bos=false",
        "every input begins with the special token <bos> (BOS), hf.bos=true",
    ]
    assert "measured already" in said[2].err, "the same model, whoever asked for the token"
    runs = list((tmp_path / "results" / "default").glob("hf-ck-*"))
    rows = [[json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()] for run in runs]
    assert {tuple(row["bos"] for row in of_run) for of_run in rows} == {("<bos>", "<bos>"), ("", "")}
    one, other = ({row["protocol"]: row for row in of_run} for of_run in rows)
    assert one["nonoverlapping"]["nll"] != other["nonoverlapping"]["nll"]
    assert one["nonoverlapping"]["targets_hash"] == other["nonoverlapping"]["targets_hash"]
    assert one["rolling"]["nll"] == other["rolling"]["nll"], "which has a rule of its own"
    assert one["rolling"]["bits_per_byte"] and not one["rolling"]["crossing_share"]
    table = here("report", f"results={tmp_path}/results", cwd=text).out
    assert "ck (bos=<bos>)" in table


def test_a_checkpoint_is_measured_on_all_documents_unless_some_are_chosen(made, text, tmp_path):
    store = opened(made("llama"), text)
    assert (len(store.tokens.starts) - 1, store.eval.split) == (60, Split.train)
    assert len(opened(made("llama"), text, eval={"split": Split.valid}).tokens.starts) - 1 == 3
    (text / "more").mkdir(exist_ok=True)
    (text / "more" / "one.txt").write_text("one two three " * 60)
    data = DataConfig(Source.files, paths=str(text / "text"), valid=str(text / "more"), cache=str(text / "cache"))
    command = EvalCommand(hf=str(made("llama")), data=data, results=str(tmp_path / "results"))
    assert len(Checkpoint(command, CPU).tokens.starts) - 1 == 1
    words = ["eval", "--lengths", "16", f"hf={made('llama')}", *WORDS, "data.paths=more", f"results={tmp_path}/results"]
    answer = here(*words, "eval.protocols=[per_document]", cwd=text)
    assert answer.code == 0 and "all: 1 document," in answer.err and "train" not in answer.err, answer.err
    (run,) = (tmp_path / "results" / "default").glob("hf-llama-*/rows.jsonl")
    row = json.loads(run.read_text())
    assert (row["split"], row["documents_in_split"], row["corpus"]) == ("all", 1, "one.txt")


def wrong(made, into: Path, name: str) -> Path:
    """A folder that cannot be evaluated, for the reason of its name."""
    folder = Path(
        shutil.copytree(made({"future": "bert", "kind": "t5", "sizes": "uneven"}.get(name, "llama")), into / name)
    )
    if name == "bin":
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")
    elif name == "weights":
        (folder / "model.safetensors").write_bytes(b"nothing")
    elif name == "tokenizer":
        (folder / "tokenizer.json").unlink()
    elif name == "model.gguf":
        shutil.rmtree(folder)
        folder.write_bytes(b"GGUF")
    elif name == "config":
        (folder / "config.json").unlink()
    elif name == "json":
        (folder / "config.json").write_text("{")
    elif name == "classifier":
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        save_file(
            {k: t for k, t in tensors.items() if k != "lm_head.weight"}, folder / "model.safetensors", {"format": "pt"}
        )
    elif name == "code":
        auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
        config = json.loads((folder / "config.json").read_text()) | {"model_type": "own", "auto_map": auto}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "own.py").write_text("raise RuntimeError('this code must not run')\n")
    return folder


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("gone/there", [], "there is no such folder; name one, or a model of the hub"),
        ("bin", [], "holds pytorch_model.bin: posexp loads safetensors alone"),
        ("weights", [], "transformers cannot load it"),
        ("tokenizer", [], "has no tokenizer.json, and its files cannot be converted to one"),
        ("model.gguf", [], "is a GGUF file, and posexp loads folders of safetensors: load it in transformers by"),
        ("config", [], "holds no config.json, so it is not a checkpoint of transformers"),
        ("json", [], "its config.json cannot be read"),
        ("future", [], "is not a causal language model: tokens of BertLMHeadModel attend to later ones"),
        ("kind", [], "is not a causal language model: its model_type is 't5'"),
        ("classifier", [], "its weights lack lm_head.weight"),
        ("sizes", [], "transformers loads it as Qwen3ForCausalLM but cannot run it: The size of tensor"),
        ("code", [], "its code comes with the checkpoint, from outside transformers: say trust=true"),
        ("llama", ["window=sinks"], "LlamaForCausalLM has no other window than 'full'"),
        ("llama", ["+transform=logn"], "logn(from=64) has no equivalent in transformers"),
        ("llama", ["train_length=0"], "train_length=0 must be at least 1"),
        ("llama", ["--runs", "rope-*"], "--runs and hf=… cannot be combined"),
        ("llama", ["hf.bos=true"], "has no beginning token (BOS); leave hf.bos out"),
        ("llama", ["hf.bos=yes"], "hf.bos=yes must be auto, true or false"),
        ("llama", ["eval.protocols=[rolling]"], "this tokenizer has neither: choose per_document"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(made, text, tmp_path, name, words, says):
    folder = tmp_path / name if "/" in name else wrong(made, tmp_path, name)
    answer = here("eval", "--lengths", "16,32", f"hf={folder}", *words, *WORDS, f"results={tmp_path}/results", cwd=text)
    assert says in answer.refusal()


@pytest.mark.slow
def test_a_window_that_transformers_does_not_have_is_refused(made, text):
    words = ["eval", "--lengths", "16,32", f"hf={made('mistral')}", *WORDS]
    refused = here(*words, "window=sinks", cwd=text).refusal()
    assert "transformers has no window" in refused and "choose full or sliding" in refused
    assert here(*words, "window=sliding", "window.size=8", cwd=text).code == 0


def test_a_tokenizer_that_does_not_belong_to_the_model_is_refused(made, text, tmp_path):
    folder = Path(shutil.copytree(made("llama"), tmp_path / "llama"))
    layout = json.loads((folder / "tokenizer.json").read_text())
    flags = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)
    layout["added_tokens"] = [{"id": V, "content": "model", **flags}]
    (folder / "tokenizer.json").write_text(json.dumps(layout))
    refused = here("eval", "--lengths", "16", f"hf={folder}", *WORDS, cwd=text).refusal()
    assert f"its tokenizer yields token {V}, but its model has a vocabulary of {V} tokens" in refused


@pytest.mark.slow
def test_a_hub_out_of_reach_is_said_at_once(text, tmp_path):
    # A port where nothing listens stands for a hub without network, on a machine that has one.
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    answer = posexp("eval", "--lengths", "16", "hf=some/model", *WORDS, cwd=text, **hub)
    assert "the Hugging Face hub cannot be reached for a model of that name" in answer.refusal()


@pytest.mark.slow
def test_a_model_of_the_hubs_cache_is_evaluated_without_network(made, text, tmp_path):
    cached, commit = tmp_path / "hf" / "hub" / "models--some--model", "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(made("llama"), cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    words = ["hf=some/model", *WORDS, f"results={tmp_path}/results", "eval.protocols=[nonoverlapping]"]
    answer = posexp("eval", "--lengths", "16", *words, cwd=text, **hub)
    assert answer.code == 0, answer.err
    (run,) = (tmp_path / "results" / "default").glob("hf-model-*")
    about = json.loads((run / "checkpoint.json").read_text())
    assert (about["name"], about["source"], about["commit"]) == ("model", "some/model", commit)


def test_code_of_a_checkpoint_runs_if_it_is_trusted(made, text, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", list(sys.path))
    folder = wrong(made, tmp_path, "code")
    (folder / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    subject = opened(folder, text, trust=True)
    model = subject.view(subject.variants(EvalCommand())[0], 64).model
    assert losses(model, whole(64)) == pytest.approx(own_losses(reference(made("llama")), IDS, whole(64)), abs=1e-5)


@pytest.mark.slow
def test_without_transformers_it_is_said_what_to_install(made, text, tmp_path):
    (tmp_path / "transformers.py").write_text("raise ImportError('not here')\n")
    answer = posexp("eval", "--lengths", "16", f"hf={made('llama')}", *WORDS, cwd=text, PYTHONPATH=str(tmp_path))
    assert answer.refusal().endswith("hf=… needs transformers: pip install 'posexp[hf]'")
