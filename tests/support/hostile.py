"""What somebody else's files may hold: values that break things, and mutations of real files. All drawn from a seed."""

import copy
import hashlib
import io
import json
import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from support.command import here, write_texts

NAMES = [
    *("../../escape", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "C:\\x", "~root", "~nobody-here", ".hidden", "CON"),
    *("x" * 300, "é" * 150, "a\0b", "a\nb", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202egnp", "\ud800", "\u3000"),
    *(
        "<script>alert(1)</script>",
        "</script><!--",
        "\"'><img src=x onerror=alert(1)>",
        "=1+1",
        "|a|b|",
        'a,b"c',
        "a;b",
    ),
    *("$(touch x)", "`touch x`", "; rm -rf x", "\\input{/etc/passwd}", "^^5cinput", "%n%s", "{0.__class__}", "[/red]"),
    *("${oc.env:HOME}", "${oc.decode:x}", "${posexp_label:}", "${a.b}", "???", "!!python/name:os.system", "*alias"),
    *("__proto__", "constructor", "null", "true", "nan", "-inf", "0x10", "1e999", "1_000", "12:30:45"),
]
NUMBERS = [
    *(
        0,
        1,
        -1,
        2,
        3,
        7,
        255,
        256,
        65536,
        2**31 - 1,
        2**31,
        -(2**31),
        2**53,
        2**53 + 1,
        2**63 - 1,
        2**63,
        2**64,
        10**30,
    ),
    *(0.0, -0.0, 0.5, 1.5, -1.5, 1e-320, 1e-30, 1e30, 1e299, 1e308, -1e308, 699.9, 709.0, 710.0, 0.1 + 0.2),
]
SPECIAL = [None, True, False, [], {}, [[]], [None], {"": None}, {"_target_": "os.system"}, [1, "a"], float("nan")]
SPECIAL += [float("inf"), float("-inf")]
TARGETS = [
    *("os.system", "builtins.eval", "posexp.schemes.rope.torch.hub.load", "posexp.schemes.rope", "posexp.schemes"),
    *(
        "posexp.schemes.rope.Rope",
        "posexp.schemes.alibi.Alibi",
        "posexp.schemes.learned.Learned",
        "posexp.windows.Window",
    ),
    *(
        "posexp.windows.sliding.Sliding",
        "posexp.temperatures.SSMax",
        "posexp.schemes.dape.DAPE",
        "posexp.schemes.Scheme",
        "posexp.schemes.t5.T5",
    ),
    *(
        "subprocess.Popen",
        "posexp.schemes.../x",
        "",
        ".",
        "posexp.schemes.rope.Rope.embed",
        "posexp.hf.subject.Checkpoint",
    ),
]
CHUNKS = [
    b"\0",
    b"\xff\xfe",
    b"\n",
    b"{",
    b"}",
    b"[",
    b'"',
    b"NaN",
    b"Infinity",
    b"1e999",
    b"9" * 5000,
    b"\xed\xa0\x80",
]
CHUNKS += [b"&a ", b"*a", b"!!python/object/apply:os.system ['true']", b"${oc.env:HOME}", b"<<: ", b"- " * 200]
CHUNKS += [
    b"[" * 2000,
    b"{" * 500,
    b'{"a":' * 1500,
    b"\x80\x04\x95",
    b"c os\nsystem\n",
    b"\x1b[2J",
    b"? ",
    b"%YAML 9.9\n",
]


def world(folder: Path, *words: str) -> Path:
    """`folder` with text/, cache/ and the runs that a sweep of `words` trains."""
    write_texts(folder / "text")
    for path in sorted((folder / "text").glob("*.txt"))[12:]:
        path.unlink()
    answer = here("train", "-m", *words, cwd=folder)
    assert answer.code == 0, answer.err
    return folder


def value(draw: Random) -> Any:
    return copy.deepcopy(draw.choice(draw.choice([NAMES, NUMBERS, SPECIAL, TARGETS])))


def junk(data: bytes, draw: Random) -> bytes:
    """`data` with some bytes changed, taken out, put in, doubled or cut off; or bytes of nothing."""
    if draw.random() < 0.05:
        return draw.randbytes(draw.choice([0, 1, 8, 9, 100, 3000]))
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
        at = draw.randrange(len(changed) + 1)
        length = draw.choice([1, 1, 2, 8, 64, 512])
        how = draw.randrange(6)
        if how == 0 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            del changed[at : at + length]
        elif how == 2:
            changed[at:at] = draw.choice(CHUNKS)
        elif how == 3:
            changed[at:at] = draw.randbytes(length)
        elif how == 4:
            changed[at:at] = changed[at : at + length]
        else:
            del changed[at:]
    return bytes(changed)


def altered(tree: Any, draw: Random) -> Any:
    """A copy of a nested value with one to three of its parts replaced, taken out, renamed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        places = [place for place in containers(tree) if place]
        if not places:
            return value(draw)
        place = draw.choice(places)
        key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
        how = draw.randrange(10)
        if how < 7:
            place[key] = draw.choice(TARGETS) if key == "_target_" and draw.random() < 0.7 else value(draw)
        elif how == 7:
            del place[key]
        elif isinstance(place, dict) and how == 8:
            place[draw.choice([*NAMES, "_args_", "_partial_", "_recursive_", "_convert_", "_target_"])] = place.pop(key)
        elif isinstance(place, dict):
            place[draw.choice(["_target_", "_args_", "new", "scheme", "window"])] = value(draw)
        else:
            place.insert(key, value(draw))
    return tree


def containers(tree: Any) -> list[Any]:
    found = [tree] if isinstance(tree, (dict, list)) else []
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return found + [inner for part in inside for inner in containers(part)]


def json_file(data: bytes, draw: Random) -> bytes:
    if draw.random() < 0.35:
        return junk(data, draw)
    return json.dumps(altered(json.loads(data), draw)).encode()


def json_lines(data: bytes, draw: Random) -> bytes:
    """Lines altered, left out, doubled, put in another order."""
    if draw.random() < 0.2:
        return junk(data, draw)
    lines = data.splitlines()
    for _ in range(draw.choice([1, 1, 2, 5])):
        at = draw.randrange(len(lines))
        how = draw.randrange(8)
        if how < 5:
            lines[at] = json.dumps(altered(json.loads(lines[at]), draw)).encode() if lines[at] else b"{}"
        elif how == 5:
            lines.insert(draw.randrange(len(lines)), lines[at])
        elif how == 6 and len(lines) > 1:
            del lines[at]
        else:
            draw.shuffle(lines)
    if draw.random() < 0.2:  # one column alike in all
        rows = [json.loads(line) for line in lines if line.startswith(b"{")]
        rows = [row for row in rows if isinstance(row, dict) and row]
        if rows:
            column, same = draw.choice(list(rows[0])), value(draw)
            lines = [json.dumps({**row, column: same}).encode() for row in rows]
    return b"\n".join(lines) + b"\n"


def yaml_file(data: bytes, draw: Random) -> bytes:
    if draw.random() < 0.3:
        return junk(data, draw)
    tree = altered(yaml.safe_load(data), draw)
    return yaml.safe_dump(tree, sort_keys=False).encode("utf-8", "surrogatepass")


def safetensors(data: bytes, draw: Random) -> bytes:
    """Another header over the same tensors, another length of it, or other tensors."""
    if draw.random() < 0.3:
        return junk(data, draw)
    size = struct.unpack("<Q", data[:8])[0]
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    how = draw.randrange(8)
    if how < 5:
        name = draw.choice([name for name in header if name != "__metadata__"])
        entry = header[name]
        kind = draw.randrange(5)
        if kind == 0:
            entry["dtype"] = draw.choice(["F64", "F16", "BF16", "I64", "BOOL", "U8", "C64", "F8_E4M3", "F4", "X", 5])
        elif kind == 1:
            entry["shape"] = draw.choice([[], [0], [1], entry["shape"][::-1], [10**12], [2**63], [-1], "x", [1] * 70])
        elif kind == 2:
            entry["data_offsets"] = draw.choice([[0, 0], [0, 2**63], [5, 1], [0, len(rest)], [], None, [-4, 4]])
        elif kind == 3:
            header[draw.choice(["model.extra", "optimizer.extra", "../x", "", "__metadata__"])] = header.pop(name)
        else:
            del header[name]
    elif how == 5:
        header = altered(header, draw)
    elif how == 6:
        rest = draw.choice([b"", rest[:-4], rest + bytes(4), bytes(len(rest)), b"\xff" * len(rest)])
    text = json.dumps(header).encode()
    if draw.random() < 0.3:
        text += b" " * draw.choice([1, 7, 4096])
    said = draw.choice([len(text)] * 9 + [0, 1, len(text) + 8, 2**31, 2**63, 2**64 - 1])
    return struct.pack("<Q", said) + text + rest


def npy(data: bytes, draw: Random) -> bytes:
    """An array of another type or shape, a header that claims another, or a pickled object."""
    if draw.random() < 0.3:
        return junk(data, draw)
    if draw.random() < 0.5:
        array = np.load(io.BytesIO(data))
        changed = [
            *(array[::-1], array[:1], array[:0], array.astype(np.float16), array.astype(np.complex64), array[None]),
            *(array.astype(str), array * 0, array - 1, array.astype(">i8"), np.array(5), np.zeros(3, "i4,f4")),
        ]
        array, out = draw.choice(changed), io.BytesIO()
        np.save(out, array)
        return out.getvalue()
    shapes = ["(10**15,)", "(1000000000000,)", "(-1,)", "()", "(0,)", "(2, 3)", "'x'", "(9999999999999999999,)"]
    kinds = ["'<i8'", "'|O'", "'<f4'", "'|V99999'", "'<U1000000'", "'junk'", "[('a', '|O')]", "None"]
    header = f"{{'descr': {draw.choice(kinds)}, 'fortran_order': False, 'shape': {draw.choice(shapes)}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data[128:]


def sign_store(folder: Path, draw: Random | None = None) -> None:
    """Makes store.json say of the other files what they are, as whoever altered them would."""
    path = folder / "store.json"
    meta = json.loads(path.read_bytes())
    for name, known in meta["files"].items():
        content = (folder / name).read_bytes()
        known |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_bytes(signed(meta))


def signed(meta: Any) -> bytes:
    if not isinstance(meta, dict):
        return json.dumps(meta).encode()
    meta = {key: inner for key, inner in meta.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
    return json.dumps(meta | {"sha256": digest}).encode()


def store_json(data: bytes, draw: Random) -> bytes:
    if draw.random() < 0.2:
        return junk(data, draw)
    return signed(altered(json.loads(data), draw))
