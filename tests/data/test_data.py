import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from omegaconf import OmegaConf

from posexp.config.sections import DataConfig, Source, Split
from posexp.data import Store, files, hub, stdlib, tokenizer
from posexp.data.load import load_store
from posexp.data.sampler import SequenceSampler
from posexp.data.store import key_of
from posexp.errors import Misuse

ROOT = Path(__file__).resolve().parents[2]
CORPORA = Path(os.environ.get("POSEXP_CORPORA", ROOT.parent / "shared" / "data"))
PACK = {
    **{"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress},
    **dict.fromkeys((".zst", ".zstd"), lambda data: zstandard.compress(data[:999]) + zstandard.compress(data[999:])),
}


def texts(count: int = 40, seed: int = 0) -> list[str]:
    """Documents of 20 to 400 words, all different."""
    draw = random.Random(seed)
    words = ["alpha", "beta", "Gamma", "naïve", "数学", "x = 1", "it's", "…", "\n", "  two", "1234", "🙂"]
    return [f"{n}\n" + " ".join(draw.choices(words, k=draw.randint(20, 400))) for n in range(count)]


def write(folder: Path, documents: list[str], prefix: str = "doc") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, text in enumerate(documents):
        (folder / f"{prefix}{index:03}.txt").write_bytes(text.encode())
    return folder


def jsonl(documents: list[str], field: str = "text") -> bytes:
    return "".join(json.dumps({"id": n, field: text}) + "\n" for n, text in enumerate(documents)).encode()


def config(tmp_path: Path, paths: object, **knobs: object) -> DataConfig:
    values = {"source": Source.files, "paths": paths, "tokenizer": "bytes", "cache": str(tmp_path / "cache")}
    if isinstance(paths, Path):
        values["paths"] = str(paths)
    return DataConfig(**(values | knobs))  # type: ignore[arg-type]


def quietly(line: str) -> None:
    pass


def documents(store: Store, split: Split) -> list[str]:
    """Decoded from the store; the tokenizer must be byte-level."""
    tokens, decoder = store.split(split), tokenizer.load_tokenizer(store.tokenizer_path)
    bounds = zip(tokens.starts[:-1], tokens.starts[1:], strict=True)
    return [decoder.decode(tokens.ids[first:last].tolist(), skip_special_tokens=False) for first, last in bounds]


def all_of(store: Store) -> list[str]:
    return sorted(text for held in everything(store).values() for text in held)


def everything(store: Store) -> dict[str, list[str]]:
    return {split: documents(store, Split(split)) for split in store.meta["splits"]}


@pytest.mark.parametrize("packing", PACK)
def test_every_kind_of_file_and_packing_gives_the_same_documents(tmp_path, packing):
    expected = texts()
    pack = PACK[packing]
    folder = tmp_path / "many"
    folder.mkdir()
    for index, text in enumerate(expected):
        (folder / f"{index:03}.md{packing}").write_bytes(pack(text.encode()))
    rows = tmp_path / f"rows.jsonl{packing}"
    rows.write_bytes(pack(jsonl(expected, "body")))
    array = tmp_path / f"array.json{packing}"
    array.write_bytes(pack(json.dumps([{"body": text} for text in expected], indent=1).encode()))
    table = tmp_path / f"table.tsv{packing}"
    table.write_bytes(pack(separated(expected, "body", "\t")))
    for paths in (folder, rows, array, table, [str(rows), str(rows)]):
        store = load_store(config(tmp_path, paths, field="body"), quietly)
        assert all_of(store) == sorted(expected)


def separated(documents: list[str], field: str = "text", delimiter: str = ",") -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([("id", field), *enumerate(documents)])
    return file.getvalue().encode()


@pytest.mark.slow
def test_rows_are_known_by_their_suffixes_and_json_lines_without_one_by_content(tmp_path):
    expected = [*texts(5), "NA", "2020-01-01", "null", "long " * 50_000]
    for name, data in {
        "a.ndjson": jsonl(expected),
        "b.jsonlines": jsonl(expected),
        "c.CSV": separated(expected),
        "d": jsonl(expected),
        "e.dump.bz2": bz2.compress(jsonl(expected)),
        "f.json": json.dumps(expected).encode(),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert all_of(load_store(config(tmp_path, tmp_path / name), quietly)) == sorted(expected), name


@pytest.mark.slow
def test_only_the_field_that_is_asked_for_is_read(tmp_path):
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    expected = ["2020-01-01", *texts(5)]
    others: list[object] = [None, 1, "n/a", {"a": 1}, {"a": "x", "b": []}, "2020-01-01"]
    lines = [json.dumps({"text": text, "other": other}) for text, other in zip(expected, others, strict=True)]
    lines[3] = lines[3].replace('"other"', '"new"').replace("1}", "9" * 5000 + "}")
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    headers = pa.array([[("a", "b")]] * 6, pa.map_(pa.string(), pa.string()))
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        table = pa.table({"headers": headers, "text": pa.array(expected, pa.string()).cast(kind)})
        pa.parquet.write_table(table, tmp_path / "b.parquet")
        pa.feather.write_feather(table, str(tmp_path / "c.arrow"), compression="uncompressed")
        with pa.ipc.new_stream(str(tmp_path / "d.arrow"), table.schema) as stream:
            stream.write_table(table)
        for name in ("a.jsonl", "b.parquet", "c.arrow", "d.arrow"):
            store = load_store(config(tmp_path / str(kind), tmp_path / name), quietly)
            assert all_of(store) == sorted(expected), (name, kind)
    pa.parquet.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    paths = [str(tmp_path / name) for name in ("b.parquet", "empty.parquet")]
    assert all_of(load_store(config(tmp_path, paths), quietly)) == sorted(expected), "an empty shard adds nothing"


def test_parquet_and_files_of_other_suffixes_are_read(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": texts(20), "n": list(range(20))}), tmp_path / "a.parquet")
    (tmp_path / "b.tex").write_text("\\section{named}")
    store = load_store(config(tmp_path, [str(tmp_path / "a.parquet"), str(tmp_path / "b.tex")]), quietly)
    assert all_of(store) == sorted([*texts(20), "\\section{named}"])


def test_named_splits_are_kept_and_an_absent_one_is_named(tmp_path):
    train, valid = write(tmp_path / "t", texts(3)), write(tmp_path / "v", texts(2, seed=1))
    store = load_store(config(tmp_path, train, valid=f"{valid}/**/*.txt"), quietly)
    assert everything(store) == {"train": texts(3), "valid": texts(2, seed=1)}
    with pytest.raises(Misuse, match="no test split; there are train, valid"):
        store.split(Split.test)


def test_the_split_follows_from_the_texts_alone(tmp_path):
    there = load_store(config(tmp_path, write(tmp_path / "a", texts())), quietly)
    back = load_store(config(tmp_path, write(tmp_path / "b", texts()[::-1], prefix="other")), quietly)
    first, second = everything(there), everything(back)
    assert {name: sorted(held) for name, held in first.items()} == {name: sorted(held) for name, held in second.items()}
    assert [len(first[name]) for name in ("train", "valid", "test")] == [36, 2, 2]
    assert [text.split("\n")[0] for text in first["valid"]] == ["3", "18"], "the split of these texts is fixed"


def test_equal_documents_stay_on_one_side(tmp_path):
    store = load_store(config(tmp_path, write(tmp_path / "a", texts(10) * 3)), quietly)
    sides = [set(held) for held in everything(store).values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 10


def test_three_documents_give_three_splits_and_fewer_are_cut(tmp_path):
    three = load_store(config(tmp_path, write(tmp_path / "three", texts(3))), quietly)
    assert sorted(map(len, everything(three).values())) == [1, 1, 1] and not three.notes
    (tmp_path / "one.txt").write_text("0123456789" * 10)
    said: list[str] = []
    one = load_store(config(tmp_path, tmp_path / "one.txt"), said.append)
    assert [len(held[0]) for held in everything(one).values()] == [90, 5, 5]
    assert "".join(held[0] for held in everything(one).values()) == "0123456789" * 10
    assert one.notes == [said[0]] and "too few (1)" in said[0]


def test_a_line_that_matches_begins_a_document_across_rows_but_not_across_files(tmp_path):
    for name in ("a", "b"):
        rows = ["", " = One = \n", "text", " = = Section = = \n", "more\x0cpage\x85\n", " = Two = ", "end"]
        (tmp_path / f"{name}.jsonl").write_bytes(jsonl(rows))
    (tmp_path / "c.txt").write_bytes(b"head\r\n = Three = \nlast")
    paths = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "c.txt")]
    store = load_store(config(tmp_path, paths, valid=paths[2], document_start="^ = [^=].* = $"), quietly)
    from_rows = ["\n = One = \ntext\n = = Section = = \nmore\x0cpage\x85\n", " = Two = \nend"]
    assert documents(store, Split.train) == [*from_rows, *from_rows, "head\n", " = Three = \nlast"]
    assert documents(store, Split.valid) == ["head\n", " = Three = \nlast"]


def test_the_standard_library_is_read_without_tests_copies_and_empty_files(tmp_path):
    for name, text in {
        "b.py": "b = 1\n",
        "a.py": "# -*- coding: latin-1 -*-\na = 'é'\n",
        "copy.py": "b = 1\n",
        "empty.py": "",
        "pkg/c.py": "c = 1\n",
        "pkg/test/t.py": "t = 1\n",
        "idle_test/u.py": "u = 1\n",
        "site-packages/v.py": "v = 1\n",
        "encodings/w.py": "w = 1\n",
        "_sysconfigdata_x.py": "x = 1\n",
        "notes.txt": "n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    assert stdlib.read_stdlib(tmp_path) == ["# -*- coding: latin-1 -*-\na = 'é'\n", "b = 1\n", "c = 1\n"]
    with pytest.raises(Misuse, match="use data=files"):
        stdlib.read_stdlib(tmp_path / "pkg" / "nothing")


@pytest.mark.slow
def test_the_running_standard_library_becomes_a_store(tmp_path):
    setting = DataConfig(cache=str(tmp_path))
    store = load_store(setting, quietly)
    assert store.vocab_size == 2048 and store.meta["python"].startswith(f"{sys.version_info.major}.")
    assert set(store.meta["splits"]) == {"train", "valid", "test"}
    source = stdlib.read_stdlib()
    assert all_of(store) == sorted(source)
    started = time.perf_counter()
    assert load_store(setting, pytest.fail).split(Split.train).sha256 == store.split(Split.train).sha256
    assert time.perf_counter() - started < 3
    counts, train = store.token_bytes(), store.split(Split.train)
    assert counts is not None and counts[train.ids].sum() == train.bytes
    assert train.bytes == sum(len(text.encode()) for text in documents(store, Split.train))


def test_text_survives_bpe_and_bytes_exactly_and_pieces_change_nothing():
    hard = "a  b\r\n\t \x00 <unk> <|endoftext|> [CLS] naïve 数学🙂 \u2028 it's x's  \n\n  end "
    words = [word for text in texts(60) for word in (text, hard, "word " * 50, " 's 't", ". . .")]
    long = " ".join(words)
    for spec, size in (("bpe", 300), ("bytes", 256)):
        learned = tokenizer.make(spec, 300, texts())
        assert tokenizer.vocabulary_size(learned) == size
        for text in (hard, long, "".join(map(chr, range(1, 0x250)))):
            ids = learned.encode(text, add_special_tokens=False).ids
            assert learned.decode(ids, skip_special_tokens=False) == text
            counts = tokenizer.token_bytes(learned)
            assert counts is not None and counts[ids].sum() == len(text.encode())
        parts = list(tokenizer.pieces(long, 100))
        assert len(parts) > 100 and "".join(parts) == long
        assert [i for part in parts for i in learned.encode(part).ids] == learned.encode(long).ids
        assert learned.to_str() == tokenizer.make(spec, 300, texts()).to_str()
    assert learned.encode("A\n").ids == [65, 10], "the id of a byte is its value"


def test_a_tokenizer_from_elsewhere_is_used_as_it_is(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    foreign = Tokenizer(models.WordLevel({"[UNK]": 0, "alpha": 1, "beta": 2, "[BOS]": 70000}, unk_token="[UNK]"))
    foreign.pre_tokenizer = pre_tokenizers.Whitespace()
    foreign.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 70000)])
    foreign.enable_truncation(4)
    foreign.save(str(tmp_path / "t.json"))
    (tmp_path / "a.txt").write_text("alpha beta other " * 10)
    setting = config(tmp_path, tmp_path / "a.txt", valid=str(tmp_path / "a.txt"), tokenizer=str(tmp_path / "t.json"))
    store = load_store(setting, quietly)
    assert store.split(Split.train).ids.tolist() == [1, 2, 0] * 10
    assert store.vocab_size == 70001 and store.meta["dtype"] == "uint32" and store.token_bytes() is None


def test_dropout_of_a_tokenizer_is_off(tmp_path):
    made = tokenizer.learn_bpe(["alpha beta " * 50], 270)
    made.save(str(tmp_path / "t.json"))
    setting = config(tmp_path, write(tmp_path / "a", ["alpha beta " * 500] * 3), tokenizer=str(tmp_path / "t.json"))
    ids = load_store(setting, quietly).split(Split.train).ids.tolist()
    made.model.dropout = 0.5
    made.save(str(tmp_path / "t.json"))
    store = load_store(setting, quietly)
    assert store.split(Split.train).ids.tolist() == ids
    assert tokenizer.load_tokenizer(store.tokenizer_path).model.dropout is None


@pytest.mark.slow
def test_a_bpe_learns_from_text_without_blanks_in_time_linear_in_its_length(monkeypatch):
    draw = random.Random(0)
    text = "".join(draw.choices("ACGT", k=400_000))
    started = time.process_time()
    learned = tokenizer.learn_bpe([text], 300)
    assert time.process_time() - started < 10, "it takes minutes where a word may be of any length"
    assert learned.decode(learned.encode(text[:9000]).ids) == text[:9000]
    ordinary = learned.to_str(), tokenizer.learn_bpe(texts(), 400).to_str()
    monkeypatch.setattr(tokenizer, "LONGEST_WORD", 1 << 30)
    assert tokenizer.learn_bpe(texts(), 400).to_str() == ordinary[1], "words of ordinary length are not cut"


def from_elsewhere(first: Any, normalizer: Any = None, symbols: list[str] | None = None) -> Any:
    """A byte-level BPE behind a pre-tokenizer of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([first, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    if normalizer:
        made.normalizer = normalizer
    alphabet = tokenizer.byte_chars() if symbols is None else symbols
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(texts(10), trainer)
    return made


def test_bytes_of_tokens_are_counted_or_scaled_to_the_text_or_are_its_mean(tmp_path):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    plain = pre_tokenizers.Digits()
    vocabulary = {"<unk>": 0, "▁alpha": 1, "▁": 2, **{f"<0x{byte:02X}>": byte + 3 for byte in range(256)}}
    fallback = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    fallback.normalizer = normalizers.Replace(" ", "▁")
    fallback.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "alpha": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, made, how in (
        ("digits", from_elsewhere(plain), "exact"),
        ("composed", from_elsewhere(plain, normalizers.NFC()), "exact"),
        ("few symbols", from_elsewhere(plain, symbols=[]), "exact"),
        ("fallback", fallback, "exact"),
        ("drops", from_elsewhere(pre_tokenizers.Whitespace()), "scaled"),
        ("widens", from_elsewhere(pre_tokenizers.Metaspace()), "scaled"),
        ("lower", from_elsewhere(plain, normalizers.Replace("数学", "?")), "scaled"),
        ("words", words, "mean"),
    ):
        made.save(str(tmp_path / f"{name}.json"))
        folder = write(tmp_path / "a", texts(10))
        tokens = load_store(config(tmp_path, folder, tokenizer=str(tmp_path / f"{name}.json")), quietly).split(
            Split.train
        )
        counts, found = tokens.token_bytes()
        assert found == how and counts[tokens.ids].sum() == pytest.approx(tokens.bytes, rel=1e-12), name


def test_the_key_knows_content_and_vocabulary_but_not_place_and_time(tmp_path):
    here, there = write(tmp_path / "a", texts(5)), write(tmp_path / "b" / "c", texts(5))
    key = key_of(config(tmp_path, here, tokenizer="bpe", vocab_size=300))
    os.utime(there / "doc000.txt", (1, 1))
    assert key == key_of(config(tmp_path / "other", there, tokenizer="bpe", vocab_size=300))
    changed = [
        config(tmp_path, here, tokenizer="bpe", vocab_size=301),
        config(tmp_path, here, tokenizer="bytes"),
        config(tmp_path, here, tokenizer="bpe", vocab_size=300, document_start="^x"),
        config(tmp_path, here, tokenizer="bpe", vocab_size=300, valid=str(there)),
    ]
    assert len({key, *map(key_of, changed)}) == 5
    (there / "doc000.txt").write_text("something else")
    assert key != key_of(config(tmp_path, there, tokenizer="bpe", vocab_size=300))


def test_keys_and_tokens_of_a_corpus_are_fixed_for_ever(tmp_path):
    """Stored runs name them."""
    folder, rows = write(tmp_path / "a", texts()), tmp_path / "rows.jsonl"
    rows.write_bytes(jsonl(texts(), "body"))
    asked = {"tokenizer": "bpe", "vocab_size": 300, "field": "body"}
    for setting, key, tokens in (
        (config(tmp_path, rows, **asked), "d3a66825322fda10", "b5861eb79e166cdd"),
        (config(tmp_path, folder, **asked | {"field": "text"}), "6b6ff27895b7339a", "b5861eb79e166cdd"),
        (
            config(tmp_path, [str(folder), str(rows)], **asked, document_start="^1"),
            "f461b96661352c50",
            "7f57c91aade0dc4e",
        ),
    ):
        store = load_store(setting, quietly)
        assert (store.key, store.split(Split.train).sha256[:16]) == (key, tokens)


def test_a_store_named_by_its_key_needs_no_text(tmp_path):
    folder = write(tmp_path / "a", texts(5))
    built = load_store(config(tmp_path, folder), quietly)
    named = config(tmp_path, folder, store=built.key)
    folder.rename(tmp_path / "moved")
    found = load_store(named, pytest.fail)
    assert everything(found) == everything(built)
    with pytest.raises(Misuse, match=r"^data.paths: there is no file"):
        load_store(config(tmp_path, folder), quietly)
    other = tokenizer.single_bytes()
    other.save(str(tmp_path / "t.json"))
    for knobs, different in {
        ("tokenizer", "bpe"): "data.tokenizer",
        ("tokenizer", str(tmp_path / "t.json")): "data.tokenizer",
        ("document_start", "^1"): "data.document_start",
        ("valid", "somewhere"): "data.valid",
        ("cross_documents", True): "",
    }.items():
        asked = config(tmp_path, folder, store=built.key, **dict([knobs]))
        if not different:
            assert load_store(asked, pytest.fail).key == built.key
            continue
        with pytest.raises(Misuse, match=f"was built with another {different}$"):
            load_store(asked, quietly)
    for wrong in ("../x", "ABC", "0" * 15, ""):
        with pytest.raises(Misuse, match="must be 16 hex digits, got"):
            config(tmp_path, folder, store=wrong)


def test_a_named_store_is_built_from_its_own_text_and_from_no_other(tmp_path):
    folder = write(tmp_path / "a", texts(5))
    key = key_of(config(tmp_path, folder))
    assert load_store(config(tmp_path, folder, store=key), quietly).key == key
    (tmp_path / "cache" / "tokens" / key / "train.bin").unlink()
    assert load_store(config(tmp_path, folder, store=key), quietly).key == key, "damaged, and built again"
    (folder / "doc000.txt").write_text("something else")
    changed = key_of(config(tmp_path, folder))
    with pytest.raises(Misuse, match=f"no token store .*cache/tokens/{'0' * 16}, and the local text gives {changed}"):
        load_store(config(tmp_path, folder, store="0" * 16), quietly)
    with pytest.raises(Misuse, match=r"no token store .*, and it cannot be built here: .* there is no file"):
        load_store(config(tmp_path, tmp_path / "none", store="0" * 16), quietly)


def test_importing_the_room_and_finding_a_store_import_nothing_heavy(tmp_path):
    setting = config(tmp_path, write(tmp_path / "a", texts(5)))
    load_store(setting, quietly)
    code = (
        "import sys; from posexp.config.sections import *; from posexp.data.load import load_store;"
        f"load_store(DataConfig(Source.files, {setting.paths!r}, tokenizer='bytes', cache={setting.cache!r}));"
        "print([name for name in ('datasets', 'tokenizers', 'torch', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["train.bin", "tokenizer.json"])
def test_a_changed_byte_is_found_when_all_is_read(tmp_path, name):
    setting = config(tmp_path, write(tmp_path / "a", texts(5)))
    store = load_store(setting, quietly)
    assert list(store.damage()) == []
    flip(store.folder / name)
    assert [line.split(":")[0] for line in load_store(setting, pytest.fail).damage()] == [f"{name} has been changed"]


@pytest.mark.parametrize("harm", [truncate, Path.unlink])
@pytest.mark.parametrize("name", ["train.bin", "valid.documents.npy", "tokenizer.json", "store.json"])
def test_a_damaged_store_is_named_and_built_again(tmp_path, harm, name):
    setting = config(tmp_path, write(tmp_path / "a", texts(5)))
    store = load_store(setting, quietly)
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    harm(store.folder / name)
    said: list[str] = []
    again = load_store(setting, said.append)
    assert "damaged" in said[0] and name in said[0] and str(store.folder) in said[0] and "\n" not in said[0]
    assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == before
    load_store(setting, pytest.fail)


def test_a_half_written_store_is_never_used(tmp_path):
    setting = config(tmp_path, write(tmp_path / "a", texts(5)))
    folder = tmp_path / "cache" / "tokens" / key_of(setting)
    leftover = folder.with_name(folder.name + ".dead-building") / "store"
    for half in (folder, leftover):
        half.mkdir(parents=True)
        (half / "train.bin").write_bytes(b"\0" * 100)
    said: list[str] = []
    store = load_store(setting, said.append)
    assert "store.json is missing" in said[0]
    assert documents(store, Split.train)[0] in texts(5)
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, folder.name + ".lock"]


def test_a_build_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"ab\xff")
    setting = config(tmp_path, tmp_path / "bad.txt")
    for _ in range(2):
        with pytest.raises(Misuse):
            load_store(setting, quietly)
    assert [path.suffix for path in (tmp_path / "cache" / "tokens").iterdir()] == [".lock"]


@pytest.mark.slow
def test_two_processes_that_build_at_once_end_with_one_store(tmp_path):
    setting = config(tmp_path, write(tmp_path / "a", texts(400)), tokenizer="bpe", vocab_size=400)
    code = (
        "from posexp.config.sections import *; from posexp.data.load import load_store;"
        f"print(load_store(DataConfig(Source.files, {setting.paths!r}, vocab_size=400, cache={setting.cache!r})).meta)"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    (out, err), (out2, err2) = (process.communicate() for process in running)
    assert [process.returncode for process in running] == [0, 0], err + err2
    assert out == out2 and "Traceback" not in err + err2
    lines = [line for line in (err + err2).splitlines() if "waiting for another process" not in line]
    assert sum("building the token store" in line for line in lines) == 1
    assert sum(" tokens, " in line for line in lines) == 3


BAD_FILES = {
    "byte.txt": (b"ab\xff\xfe", "byte.txt is not UTF-8: byte 0xff at 2"),
    "empty.txt": (b"", "empty.txt is an empty file"),
    "empty.txt.gz": (gzip.compress(b""), "empty.txt.gz is an empty file"),
    "short.txt.gz": (gzip.compress(b"some text" * 99)[:-9], "short.txt.gz cannot be unpacked"),
    "short.txt.xz": (lzma.compress(b"some text" * 99)[:-20], "short.txt.xz cannot be unpacked"),
    "plain.txt.gz": (b"not packed", "plain.txt.gz cannot be unpacked"),
    "plain.txt.xz": (b"not packed", "plain.txt.xz cannot be unpacked"),
    "plain.txt.zst": (b"not packed", "plain.txt.zst cannot be unpacked"),
    "short.jsonl.xz": (lzma.compress(jsonl(texts()))[:-20], "short.jsonl.xz cannot be unpacked"),
    "words.jsonl": (b'{"text": "a"}\nhello\n', "words.jsonl cannot be read: line 2 is not JSON: Expecting value"),
    "byte.jsonl": (b'{"text": "a\xff"}\n', "byte.jsonl is not UTF-8"),
    "half.jsonl": (b'{"text": "a"}\n{"body": "b"}\n', "half.jsonl: row 2 has no field 'text'; its fields: body"),
    "none.jsonl": (b'{"body": "b", "id": 3}\n', "none.jsonl: row 1 has no field 'text'; its fields: body, id"),
    "null.jsonl": (b'{"text": null, "id": 3}\n', "null.jsonl: row 1: the field 'text' is null, not text"),
    "number.jsonl": (b'{"text": 3}\n', "number.jsonl: row 1: the field 'text' is a number, not text"),
    "list.jsonl": (b'{"text": ["a"]}\n', "list.jsonl: row 1: the field 'text' is a list, not text"),
    "blank.jsonl": (b"\n", "blank.jsonl"),
    "hollow.jsonl": (b'{"text": ""}\n', "the train split holds no document"),
    "bare.jsonl": (b'{"text": "a"}\n3\n', "bare.jsonl: row 2 is a number, not an object with the field 'text'"),
    "half a pair.jsonl": (b'{"text": "\\ud83d"}', r"row 1: the field 'text' holds half a character, '\\ud83d'"),
    "ragged.csv": (b"id,text\n1,a,b\n", "ragged.csv cannot be read: line 2 has 3 columns, the first line 2"),
    "heads.tsv": (b"id\ttext\n", "heads.tsv holds no rows"),
    "other.csv": (b"id,body\n1,a\n", "other.csv: row 1 has no field 'text'; its fields: id, body"),
    "cut.txt.zst": (zstandard.compress(bytes(range(128)) * 99)[:-9], "cut.txt.zst cannot be unpacked: Truncated"),
    "bomb.txt.xz": (lzma.compress(bytes(80 << 20)), "bomb.txt.xz unpacks to more than 67,108,864 bytes: unpack it"),
    "pack.zip": (b"PK\3\4\0\0", "pack.zip is neither text nor of a known suffix .*: unpack or convert it"),
    "pack.tar.gz": (gzip.compress(b"a.txt" + bytes(507)), "pack.tar.gz is neither text nor of a known suffix"),
    "train.bin": (bytes(8), "train.bin is neither text nor .*: read its token ids by data=tokens"),
    "image": (b"\x89PNG\0", "image is neither text nor of a known suffix"),
    "wrong.dump.gz": (b"not packed", "wrong.dump.gz cannot be unpacked"),
    "junk.arrow": (b"ARROW1junk", "junk.arrow cannot be read"),
    "junk.parquet": (b"PAR1junk", "junk.parquet cannot be read"),
    "packed.parquet.gz": (b"x", "packed.parquet.gz: parquet is packed inside already"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path, name, capfd, caplog):
    data, complaint = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "good.txt").write_text("fine")
    paths = [str(tmp_path / name)] if "hollow" in name else [str(tmp_path / "good.txt"), str(tmp_path / name)]
    with pytest.raises(Misuse, match=complaint) as caught:
        load_store(config(tmp_path, paths), quietly)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "") and not caplog.records


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        ({"paths": None}, "data=files needs data.paths"),
        ({"paths": 3}, "data.paths=3 must be a path"),
        ({"paths": "nowhere.txt"}, "data.paths: there is no file nowhere.txt"),
        ({"paths": "no*where.txt"}, "data.paths: no file matches"),
        ({"paths": "HERE/hollow"}, "hollow holds no file with a known suffix"),
        ({"valid": ["HERE/gone.txt"]}, "data.valid: there is no file .*gone.txt"),
        ({"document_start": "("}, "data.document_start='\\(' is not a regular expression"),
        ({"tokenizer": "gpt9"}, "data.tokenizer=gpt9 is neither bpe nor bytes"),
        ({"tokenizer": "HERE/a.txt"}, "a.txt is not a tokenizer.json"),
        ({"cache": "HERE/a.txt"}, "cannot write the token store in .*choose another folder with data.cache"),
        ({"source": Source.hub, "paths": None}, "data=hub needs data.dataset"),
        ({"source": Source.stdlib}, "data.paths belongs to data=files or tokens, not to data=stdlib"),
        ({"tokenizer": "none"}, "data.tokenizer=none belongs to data=tokens, not to data=files"),
        ({"document_end": 1}, "data.document_end belongs to data=tokens, not to data=files"),
        ({"dataset": "some/set"}, "data.dataset belongs to data=hub or tokens, not to data=files"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_in_one_line(tmp_path, knobs, complaint):
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "hollow").mkdir()
    here = json.loads(json.dumps({k: v for k, v in knobs.items() if k != "source"}).replace("HERE", str(tmp_path)))
    if "source" in knobs:
        here["source"] = knobs["source"]
    with pytest.raises(Misuse, match=complaint) as caught:
        load_store(config(tmp_path, **({"paths": str(tmp_path / "a.txt")} | here)), quietly)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line(tmp_path):
    write(tmp_path / "a", ["word " * 200_000])
    code = (
        "import resource; from posexp.config.sections import *; from posexp.errors import *\n"
        "from posexp.data.load import load_store\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (BOUND, BOUND))\n"
        "try: load_store(DataConfig(Source.files, 'a', tokenizer='bytes', cache='cache'))\n"
        "except RunFailed as error: print(error)\n"
    )
    for limit in (500_000, 900_000):  # too little for the text, and for the tokens (two bytes each)
        command = [sys.executable, "-W", "error", "-c", code.replace("BOUND", str(limit))]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("cannot write the token store in cache") and done.stdout.count("\n") == 1
        assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 1, "only the lock file"


@pytest.mark.slow
def test_a_local_folder_serves_as_a_hub_dataset(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(jsonl(texts(6), "body"))
    (folder / "validation.jsonl").write_bytes(jsonl(texts(2, seed=1), "body"))
    setting = config(tmp_path, None, source=Source.hub, dataset=str(folder), field="body")
    store = load_store(setting, quietly)
    assert everything(store) == {"train": texts(6), "valid": texts(2, seed=1)}
    with pytest.raises(Misuse, match=r"set \(train\) has no field 'text'; its fields: id, body"):
        load_store(config(tmp_path, None, source=Source.hub, dataset=str(folder)), quietly)
    bodies = ["2020-01-01", "1", "2", "3"]
    rows = [json.dumps({"body": body, "other": other}) for body, other in zip(bodies, (1, "x", None, {}), strict=True)]
    (folder / "train.jsonl").write_text("\n".join(rows))
    (folder / "validation.jsonl").write_text("\n".join(rows[:2]))
    assert everything(load_store(setting, quietly)) == {"train": bodies, "valid": bodies[:2]}
    (folder / "validation.jsonl").unlink()
    assert key_of(setting) != store.key
    assert set(everything(load_store(setting, quietly))) == {"train", "valid", "test"}


def test_a_text_column_of_a_hub_dataset_may_be_of_any_type_of_text_and_null_is_said():
    import datasets
    import pyarrow as pa

    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        rows = datasets.Dataset(pa.table({"body": pa.array(["a", "é"], pa.string()).cast(kind)}))
        assert list(hub.texts_of(rows, "body", "set")) == ["a", "é"], kind
    for value, complaint in (
        ({"b": 1}, "set: row 1: the field 'a' is an object, not text"),
        (None, "set: row 2: the field 'a' is null, not text"),
    ):
        rows = datasets.Dataset.from_dict({"a": [value, value] if value else ["x", None]})
        with pytest.raises(Misuse, match=complaint):
            list(hub.texts_of(rows, "a", "set"))
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    with pytest.raises(Misuse, match="set is not UTF-8: byte 0xff at 0"):
        list(hub.texts_of(datasets.Dataset(pa.table({"a": bad})), "a", "set"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    ["DataConfig(Source.hub, dataset='some/set', cache='cache')", "fineweb"],
)
def test_a_hub_out_of_reach_is_said_at_once(tmp_path, made):
    name = "kjj0/fineweb10B-gpt2" if made == "fineweb" else "some/set"
    if made == "fineweb":
        preset = OmegaConf.load(ROOT / "configs" / "data" / "fineweb.yaml")
        options = {key: value for key, value in OmegaConf.to_container(preset).items() if key != "source"}
        made = f"DataConfig(Source.{preset.source}, cache='cache', **{options})"
    code = (
        "import time; from posexp.config.sections import *; from posexp.errors import Misuse\n"
        "from posexp.data.load import load_store\n"
        "start = time.perf_counter()\n"
        f"try: load_store({made})\n"
        "except Misuse as error: print(error); print(time.perf_counter() - start)\n"
    )
    # A port where nothing listens stands for a hub without network, on a machine that has one.
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=kept | hub)
    assert done.returncode == 0 and not done.stderr, done.stderr
    line, seconds = done.stdout.splitlines()
    assert line.startswith(f"cannot reach the Hugging Face hub for '{name}': no network? use data=stdlib or data=files")
    assert float(seconds) < 8


def windows(tmp_path: Path, length: int, cross: bool) -> SequenceSampler:
    """Over three documents of 5, 3 and 9 bytes, each of one letter."""
    write(tmp_path / "w", ["aaaaa", "bbb", "ccccccccc"])
    setting = config(tmp_path, tmp_path / "w", valid=str(tmp_path / "w"))
    return SequenceSampler(load_store(setting, quietly).split(Split.train), length, cross)


def test_windows_cross_documents_only_if_told_to(tmp_path):
    inside, across = windows(tmp_path, 3, False), windows(tmp_path, 3, True)
    x_BT, y_BT = inside.batch(0, 0, 500)
    assert x_BT.shape == y_BT.shape == (500, 3) and x_BT.dtype == y_BT.dtype and str(x_BT.dtype) == "torch.int64"
    assert ((x_BT == x_BT[:, :1]) & (y_BT == x_BT[:, :1])).all()
    # Two places in the first document, none in the second, six in the third.
    assert abs((x_BT[:, 0] == ord("c")).float().mean().item() - 6 / 8) < 0.06
    assert (inside.used_documents, inside.left_out) == (2, (1, 3))
    x_BT, y_BT = across.batch(0, 0, 2000)
    seen = {bytes([*x, *y[-1:]]) for x, y in zip(x_BT.tolist(), y_BT.tolist(), strict=True)}
    whole = b"aaaaabbbccccccccc"
    assert seen == {whole[start : start + 4] for start in range(len(whole) - 3)}
    assert (across.used_documents, across.left_out) == (3, (0, 0))


def test_a_batch_follows_from_its_arguments_alone(tmp_path):
    load_ = config(tmp_path, write(tmp_path / "a", texts()))
    tokens = load_store(load_, quietly).split(Split.train)
    one, two = SequenceSampler(tokens, 16, False), SequenceSampler(tokens, 16, False)
    two.batch(3, 4, 5)
    first = one.batch(7, 8, 32)
    assert all((a == b).all() for a, b in zip(first, two.batch(7, 8, 32), strict=True))
    assert (first[0][:, 1:] == first[1][:, :-1]).all()
    for other in ((7, 9), (8, 8), (8, 7)):
        assert not (first[0] == one.batch(*other, 32)[0]).all()


@pytest.mark.slow
def test_every_place_is_drawn_equally_often_and_is_in_the_text(tmp_path):
    tokens = load_store(config(tmp_path, write(tmp_path / "a", texts())), quietly).split(Split.train)
    drawn = SequenceSampler(tokens, 8, False).batch(0, 0, 20_000)[0][:, 0].numpy()
    ends = tokens.starts[1:]
    allowed = np.concatenate([tokens.ids[first : end - 8] for first, end in zip(tokens.starts, ends, strict=False)])
    observed, expected = (np.bincount(values, minlength=256) / len(values) for values in (drawn, allowed))
    assert np.abs(observed - expected).max() < 0.01


def test_a_corpus_without_room_for_a_window_says_what_there_is(tmp_path):
    with pytest.raises(Misuse, match="the longest document, 9 tokens, is shorter than one sequence of 9 tokens"):
        windows(tmp_path, 9, False)
    with pytest.raises(Misuse, match="all 17 tokens together are shorter than one sequence of 17 tokens"):
        windows(tmp_path, 17, True)
    assert windows(tmp_path, 16, True).batch(0, 0, 2)[0].shape == (2, 16)


def corpus_file(name: str) -> str:
    path = CORPORA / name
    if not path.is_file():
        pytest.skip(f"{name} is not in the folder of corpora (POSEXP_CORPORA)")
    return str(path)


@pytest.mark.slow
def test_wikitext_is_divided_at_its_headings(tmp_path):
    path = corpus_file("wikitext-2.valid.txt.xz")
    store = load_store(config(tmp_path, path, document_start="^ = [^=].* = $"), quietly)
    held = everything(store)
    assert sum(map(len, held.values())) == 60
    assert sum(split["bytes"] for split in store.meta["splits"].values()) == 1_121_681
    whole = lzma.decompress(Path(path).read_bytes()).decode()
    assert all(text in whole and text.lstrip("\n ").startswith("= ") for texts in held.values() for text in texts)


@pytest.mark.slow
def test_proofs_are_rows_of_jsonl(tmp_path):
    path = corpus_file("proofs.valid.jsonl.xz")
    store = load_store(config(tmp_path, path, valid=path), quietly)
    expected = [json.loads(line)["text"] for line in lzma.decompress(Path(path).read_bytes()).splitlines()]
    assert documents(store, Split.valid) == expected
    assert store.split(Split.train).bytes == 1_188_816 == store.split(Split.train).starts[-1]


def test_a_folder_gives_its_files_of_known_suffix_and_a_line_names_the_others(tmp_path):
    for name in ("b.txt", "a/z.jsonl.gz", "a/.hidden.txt", ".git/c.txt", "d.py", "e.txt.bz2", "f.csv", "g.txt.7z"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    found = files.expand("data.paths", str(tmp_path / "in"))
    assert [path.relative_to(tmp_path / "in").as_posix() for path in found] == [
        *("a/z.jsonl.gz", "b.txt", "e.txt.bz2", "f.csv")
    ]
    for name in ("a/z.jsonl.gz", "e.txt.bz2", "f.csv"):
        (tmp_path / "in" / name).unlink()
    said: list[str] = []
    store = load_store(config(tmp_path, tmp_path / "in", valid=str(tmp_path / "in")), said.append)
    names = ".git/c.txt, a/.hidden.txt, d.py and 1 more"
    line = f"skipped in {tmp_path / 'in'}, because hidden or of no known suffix: {names}"
    assert said[:2] == store.notes[:2] == [f"data.paths: {line}", f"data.valid: {line}"]
