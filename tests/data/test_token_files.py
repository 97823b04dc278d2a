"""Tokens that exist already: files of nanoGPT and Megatron, and folders of tokenizers."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from posexp.config.sections import DataConfig, Source, Split
from posexp.data import Store, tokenizer
from posexp.data.load import load_store
from posexp.data.store import key_of
from posexp.errors import Misuse

DOCUMENTS = [[5, 6, 7, 1], [8, 1], [9, 9, 9, 9, 9, 2, 1], [3, 1]]
ENDED = [token for document in DOCUMENTS for token in document]


def config(tmp_path: Path, paths: object, **knobs: object) -> DataConfig:
    values = {"source": Source.tokens, "paths": str(paths), "tokenizer": "none", "vocab_size": 300}
    return DataConfig(**(values | {"cache": str(tmp_path / "cache")} | knobs))  # type: ignore[arg-type]


def nanogpt(path: Path, ids: list[int], dtype: str = "H") -> Path:
    path.write_bytes(struct.pack(f"<{len(ids)}{dtype}", *ids))
    return path


def megatron(prefix: Path, documents: list[list[list[int]]], code: int = 8, letter: str = "H") -> Path:
    """The two files of documents of sequences, written as megatron/core/datasets/indexed_dataset.py lays them out."""
    sequences = [sequence for document in documents for sequence in document]
    sizes = [len(sequence) for sequence in sequences]
    width = struct.calcsize(letter)
    pointers = [width * sum(sizes[:n]) for n in range(len(sizes))]
    first = [sum(len(document) for document in documents[:n]) for n in range(len(documents) + 1)]
    ids = [token for sequence in sequences for token in sequence]
    Path(f"{prefix}.bin").write_bytes(struct.pack(f"<{len(ids)}{letter}", *ids))
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(sizes), len(first))
    rest = struct.pack(f"<{len(sizes)}i{len(pointers)}q{len(first)}q", *sizes, *pointers, *first)
    Path(f"{prefix}.idx").write_bytes(head + rest)
    return Path(f"{prefix}.bin")


def quietly(line: str) -> None:
    pass


def documents(store: Store, split: str) -> list[list[int]]:
    tokens = store.split(Split(split))
    return [tokens.ids[a:b].tolist() for a, b in zip(tokens.starts[:-1], tokens.starts[1:], strict=True)]


def test_a_file_of_nanogpt_is_one_document_or_has_an_id_that_ends_each(tmp_path):
    train, valid = nanogpt(tmp_path / "train.bin", ENDED), nanogpt(tmp_path / "val.bin", [4, 4])
    whole = load_store(config(tmp_path, train, valid=str(valid)), quietly)
    assert documents(whole, "train") == [ENDED] and documents(whole, "valid") == [[4, 4]]
    cut = load_store(config(tmp_path, train, valid=str(valid), document_end=1), quietly)
    assert documents(cut, "train") == DOCUMENTS and cut.key != whole.key
    assert (cut.vocab_size, cut.meta["dtype"], cut.meta["splits"]["train"]["bytes"]) == (300, "uint16", 0)
    assert cut.token_bytes() is None, "the text of the ids is not known"


def test_the_header_of_a_file_of_llm_c_is_no_text(tmp_path):
    plain = nanogpt(tmp_path / "plain.bin", ENDED * 300)
    ids = plain.read_bytes()
    headed, broken = tmp_path / "headed.bin", tmp_path / "broken.bin"
    header = struct.pack("<3i", 20240520, 1, len(ids) // 2).ljust(1024, b"\0")
    headed.write_bytes(header + ids)
    broken.write_bytes(header + ids[2:])
    one, two = (load_store(config(tmp_path, path, valid=str(path)), quietly) for path in (plain, headed))
    assert documents(one, "train") == documents(two, "train")
    with pytest.raises(Misuse, match="holds the token id"):  # another number of tokens: it is no header
        load_store(config(tmp_path, broken, valid=str(broken)), quietly)


def test_a_large_vocabulary_is_of_four_bytes(tmp_path):
    train = nanogpt(tmp_path / "train.bin", [1, 70_000, 2], "I")
    store = load_store(config(tmp_path, train, valid=str(train), vocab_size=70_001), quietly)
    assert documents(store, "train") == [[1, 70_000, 2]] and store.meta["dtype"] == "uint32"


@pytest.mark.parametrize(("code", "letter"), [(8, "H"), (4, "i"), (5, "q"), (1, "B")])
@pytest.mark.parametrize("named", ["corpus.bin", "corpus.idx", "corpus", "corpus.*"])
def test_documents_of_megatron_are_those_of_its_index(tmp_path, code, letter, named):
    sequences = [[DOCUMENTS[0], DOCUMENTS[1]], [DOCUMENTS[2]], [], [DOCUMENTS[3]]]
    megatron(tmp_path / "corpus", sequences, code, letter)
    store = load_store(config(tmp_path, tmp_path / named, hold_out=False), quietly)
    assert documents(store, "train") == [DOCUMENTS[0] + DOCUMENTS[1], *DOCUMENTS[2:]]


def test_documents_are_held_out_whole_or_the_end_of_one(tmp_path):
    train = nanogpt(tmp_path / "train.bin", [n for m in range(40) for n in (m + 2, m + 3, 1)])
    store = load_store(config(tmp_path, train, document_end=1), quietly)
    assert [len(documents(store, split)) for split in ("train", "valid", "test")] == [36, 2, 2]
    one = load_store(config(tmp_path, nanogpt(tmp_path / "one.bin", list(range(100)))), quietly)
    parts = [documents(one, split) for split in ("train", "valid", "test")]
    assert parts == [[list(range(90))], [list(range(90, 95))], [list(range(95, 100))]]


def test_a_folder_gives_its_bin_files(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    nanogpt(folder / "b.bin", [7])
    megatron(folder / "a", [[[5]], [[6]]])
    (folder / "meta.pkl").write_bytes(b"never read")
    store = load_store(config(tmp_path, folder, hold_out=False), quietly)
    assert documents(store, "train") == [[5], [6], [7]]


def test_the_tokenizer_of_the_ids_gives_their_bytes(tmp_path):
    made = tokenizer.single_bytes()
    made.save(str(tmp_path / "tokenizer.json"))
    text = "some text, naïve"
    train = nanogpt(tmp_path / "train.bin", list(text.encode()))
    store = load_store(config(tmp_path, train, hold_out=False, tokenizer=str(tmp_path)), quietly)
    assert store.vocab_size == 256 and store.split(Split.train).bytes == len(text.encode())
    assert store.split(Split.train).token_bytes()[1] == "exact"


def test_the_key_of_ids_knows_their_files(tmp_path):
    one = megatron(tmp_path / "one", [[[5, 6]], [[7]]])
    keys = {key_of(config(tmp_path, one)), key_of(config(tmp_path, one, vocab_size=301))}
    megatron(tmp_path / "one", [[[5, 6], [7]]])
    keys.add(key_of(config(tmp_path, one)))
    (tmp_path / "one.idx").unlink()
    assert len(keys | {key_of(config(tmp_path, one))}) == 4


def harmed(at: int, change: bytes) -> Any:
    def harm(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[:at] + change + data[at + len(change) :])

    return harm


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("suffix", "harm", "complaint"),
    [
        (".idx", harmed(0, b"X"), "x.idx is no index of Megatron: it does not begin with MMIDIDX"),
        (".idx", lambda path: path.write_bytes(b"MMIDIDX\0\0"), "x.idx is no index of Megatron"),
        (".idx", harmed(9, b"\2"), "x.idx has version 2 and dtype code 8: 1 and 1, 2, 3, 4, 5, 8 are read"),
        (".idx", harmed(17, b"\6"), "x.idx has version 1 and dtype code 6"),
        (".idx", shortened, "x.idx has 74 bytes, which do not hold 2 sequences and 3 entries of documents"),
        (".idx", harmed(25, b"\x7f"), "x.idx has 82 bytes, which do not hold"),
        (".idx", harmed(34, b"\3"), "x.idx does not fit .*x.bin: its sequences are not the 3 tokens"),
        (".idx", harmed(37, b"\xff"), "x.idx does not fit .*x.bin"),
        (".idx", harmed(42, b"\2"), "x.idx does not fit .*x.bin"),
        (".idx", harmed(58, b"\1"), "x.idx is damaged: its documents are not its 2 sequences"),
        (".idx", harmed(74, b"\1"), "x.idx is damaged"),
        (".bin", shortened, "x.bin has 0 bytes|x.bin is an empty file"),
        (".bin", lambda path: path.write_bytes(b"abc"), "x.bin has 3 bytes, which are no whole number of uint16"),
        (".bin", lambda path: path.write_bytes(b"abcd"), "x.idx does not fit .*x.bin: .* the 2 tokens"),
        (".bin", Path.unlink, "x.bin is missing, to which x.idx belongs"),
        (".bin", harmed(0, b"\xff\xff"), "x.bin holds the token id 65535, and the vocabulary has 300 tokens: set"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named_in_one_line(tmp_path, suffix, harm, complaint):
    megatron(tmp_path / "x", [[[5, 6]], [[7]]])
    harm(tmp_path / f"x{suffix}")
    with pytest.raises(Misuse, match=complaint) as caught:
        load_store(config(tmp_path, tmp_path / "x.idx"), quietly)
    assert "\n" not in str(caught.value)


def test_a_negative_id_is_refused(tmp_path):
    megatron(tmp_path / "x", [[[5, -1]]], 4, "i")
    with pytest.raises(Misuse, match=r"x\.bin holds the token id -1"):
        load_store(config(tmp_path, tmp_path / "x"), quietly)


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        ({"paths": None}, "data=tokens needs data.paths=<train.bin>"),
        ({"paths": "nowhere.bin"}, "data.paths: there is no file nowhere.bin"),
        ({"paths": "HERE/a.txt"}, "a.txt is no file of token ids, which ends with .bin: text is read by data=files"),
        ({"paths": "HERE/odd.bin"}, "odd.bin has 3 bytes, which are no whole number of uint16 token ids"),
        ({"vocab_size": 5}, "a.bin holds the token id 7, and the vocabulary has 5 tokens: set data.vocab_size"),
        ({"tokenizer": "bpe"}, "data=tokens cannot learn a bpe, which needs text: set data.tokenizer=none, or"),
        (
            {"document_start": "x"},
            "data.document_start belongs to data=stdlib or files or hub or task, not to data=tokens",
        ),
        ({"paths": "HERE/in"}, "holds no file with a known suffix"),
    ],
)
def test_a_setting_of_token_files_that_cannot_be_used_is_named(tmp_path, knobs, complaint):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "odd.bin").write_bytes(b"abc")
    nanogpt(tmp_path / "a.bin", [5, 6, 7])
    if knobs.get("paths"):
        knobs = knobs | {"paths": knobs["paths"].replace("HERE", str(tmp_path))}
    with pytest.raises(Misuse, match=complaint):
        load_store(DataConfig(**(vars(config(tmp_path, tmp_path / "a.bin")) | knobs)), quietly)


# ---- folders of tokenizers


def tokenizer_folder(folder: Path, **about: object) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1, "two": 2, "<s>": 3, "</s>": 4}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.Fuse()
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    if about:
        (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


def text_config(tmp_path: Path, folder: Path) -> DataConfig:
    text = tmp_path / "text"
    text.mkdir(exist_ok=True)
    for name in ("a", "b", "c"):
        (text / f"{name}.txt").write_text("one two")
    return DataConfig(
        Source.files, str(text), tokenizer=str(folder), cache=str(tmp_path / "cache"), hold_out=False
    )  # fmt: skip


def test_a_folder_of_a_tokenizer_is_its_tokenizer_json(tmp_path):
    folder = tokenizer_folder(tmp_path / "t", bos_token="<s>", eos_token="</s>", add_bos_token=False)
    store = load_store(text_config(tmp_path, folder), quietly)
    assert documents(store, "train") == [[1, 2]] * 3
    assert store.key == key_of(text_config(tmp_path, folder / "tokenizer.json"))


def test_bos_and_eos_of_a_folder_begin_and_end_documents_and_are_no_text(tmp_path):
    eos = {"content": "</s>", "lstrip": False}
    folder = tokenizer_folder(tmp_path / "t", bos_token="<s>", eos_token=eos, add_bos_token=True, add_eos_token=True)
    store = load_store(text_config(tmp_path, folder), quietly)
    assert documents(store, "train") == [[3, 1, 2, 4]] * 3
    assert store.key != key_of(text_config(tmp_path, folder / "tokenizer.json"))
    counts = store.token_bytes()
    assert counts is not None and counts[[3, 1, 2, 4]].tolist() == [0, 3, 3, 0]


@pytest.mark.parametrize(
    ("about", "complaint"),
    [
        ({"add_bos_token": True}, "tokenizer_config.json names no BOS and EOS token: 'bos_token'"),
        ({"add_bos_token": True, "bos_token": 5}, "names no BOS and EOS token: a token must be text"),
        ({"add_eos_token": True, "eos_token": "<end>"}, "its eos_token '<end>' is not in its tokenizer.json"),
    ],
)
def test_a_folder_of_a_tokenizer_that_is_damaged_is_named(tmp_path, about, complaint):
    with pytest.raises(Misuse, match=complaint):
        load_store(text_config(tmp_path, tokenizer_folder(tmp_path / "t", **about)), quietly)


def test_a_folder_without_tokenizer_json_says_how_to_get_one(tmp_path):
    with pytest.raises(Misuse, match=r"holds no tokenizer.json: save_pretrained of transformers.AutoTokenizer"):
        load_store(text_config(tmp_path, tmp_path), quietly)
