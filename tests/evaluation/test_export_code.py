"""What transformers has no architecture for is exported with its code, and is the same model without posexp."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")

from posexp.config.commands import TrainCommand
from posexp.config.components import options_of
from posexp.config.sections import AttentionGate, Mlp, ModelConfig, TrainConfig, config_dir
from posexp.hf.custom_code import code_of, config_with_code
from posexp.hf.export import config_of, safetensors_of, shared_keys, tensors_with_code, text_of
from posexp.model.base import Model
from posexp.model.decoder import build_model
from posexp.runs.run import Run

V, LENGTH, LONGEST, NEW = 256, 16, 40, 6

# Loads every folder in a process that has no posexp, Hydra and OmegaConf, and writes what it computes.
STRANGER = """
import sys
from pathlib import Path

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("posexp", "hydra", "omegaconf"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Hidden())
import torch
import transformers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    if not folder.name.startswith("_"):
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=True, local_files_only=True, output_loading_info=True
        )
        assert not any(info.values()), (folder.name, info)
        tokens = torch.load(folder / "tokens.pt")
        torch.manual_seed(0)  # of random positions
        with torch.no_grad():
            whole = model(input_ids=tokens, labels=tokens)
        prompt = tokens[:, : tokens.shape[1] - NEW]
        arguments = dict(max_new_tokens=NEW, do_sample=False, attention_mask=torch.ones_like(prompt))
        found = {
            "logits": whole.logits,
            "loss": float(whole.loss),
            "cacheable": model.cacheable,
        }
        for key, cache in ("text", {}), ("uncached", {"use_cache": False}):
            torch.manual_seed(0)
            found[key] = model.generate(prompt, **arguments, **cache)
        if model.cacheable:
            with torch.no_grad():
                past = transformers.DynamicCache()
                pieces = tokens.split([5, 1, 7, tokens.shape[1] - 13], dim=1)
                parts = [model(input_ids=piece, past_key_values=past).logits for piece in pieces]
            found["pieces"] = torch.cat(parts, dim=1)
        torch.save(found, folder / "found.pt")
assert not any(name.partition(".")[0] == "posexp" for name in sys.modules)
""".replace("NEW", str(NEW))


def names(kind: str) -> list[str]:
    return sorted(path.stem for path in (config_dir() / kind).glob("*.yaml"))


def command(scheme: str = "alibi", model: dict | None = None, hyper: dict | None = None, **parts: str) -> TrainCommand:
    sections: dict[str, Any] = {kind: options_of(kind, name, {}) for kind, name in parts.items()}
    return TrainCommand(
        scheme=options_of("scheme", scheme, hyper or {}),
        label=scheme,
        model=ModelConfig(**{"d_model": 32, "n_layer": 2, "n_head": 2} | (model or {})),
        train=TrainConfig(length=LENGTH, batch_tokens=LENGTH),
        **sections,
    )


def built(config: TrainCommand) -> Model:
    """A model far from its start, so that positions show in its logits."""
    model = build_model(config, V).eval()
    torch.manual_seed(2)
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "scheme" not in name:
            torch.nn.init.normal_(weight, std=0.05 if "embedding" in name else 0.2)
        else:
            weight.data += 0.3 * torch.rand_like(weight)
    model.scheme.progress(1.0)
    return model


def exported(folder: Path, config: TrainCommand, model: Model) -> None:
    folder.mkdir()
    about = config_with_code(config, model)
    assert config_of(config, model) is None or config.label == "rope"
    for name, text in code_of(about).items():
        (folder / name).write_text(text)
    (folder / "config.json").write_text(text_of({**about, **shared_keys(Run(folder), config, model)}))
    (folder / "model.safetensors").write_bytes(safetensors_of(tensors_with_code(model)))


def loaded_elsewhere(root: Path) -> dict[str, dict[str, Any]]:
    """What a process without posexp computes from the folders below `root`."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment = {**own, "HF_MODULES_CACHE": str(root / "_modules"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(root)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {path.parent.name: torch.load(path) for path in root.glob("*/found.pt")}


@pytest.mark.slow
def test_every_scheme_window_temperature_and_mixer_is_the_same_model_without_posexp(tmp_path):
    commands = {name: command(name) for name in names("scheme")}
    commands |= {f"window-{name}": command("rope", window=name) for name in names("window")}
    mixed = {"inner": "alibi"}
    commands |= {
        f"temperature-{name}": command("alternate", None, mixed, temperature=name) for name in names("temperature")
    }
    commands |= {f"mixer-{name}": command("fire", mixer=name) for name in names("mixer")}
    commands["sizes"] = command("cope", {"mlp": Mlp.gelu, "attention_gate": AttentionGate.head, "n_kv_head": 1})
    commands["short_conv"] = command("t5", {"short_conv": 4})
    models = {name: (config, built(config)) for name, config in commands.items()}
    for name, (config, model) in models.items():
        exported(tmp_path / name, config, model)
        count = min(LONGEST, model.scheme.max_length or LONGEST)
        tokens = torch.randint(V, (2, count), generator=torch.Generator().manual_seed(3))
        torch.save(tokens, tmp_path / name / "tokens.pt")
    found = loaded_elsewhere(tmp_path)
    assert found.keys() == models.keys()
    wrong = {}
    for name, (_, model) in models.items():
        tokens, theirs = torch.load(tmp_path / name / "tokens.pt"), found[name]
        torch.manual_seed(0)
        with torch.no_grad():
            logits = model.logits(model(tokens))
            loss = float(F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))
        errors = [float((theirs[key] - logits).abs().max()) for key in ("logits", "pieces") if key in theirs]
        same = bool((theirs["text"] == theirs["uncached"]).all()) and float(logits.std()) > 0.3
        if max(errors) > 1e-5 or abs(theirs["loss"] - loss) > 1e-5 or not same:
            wrong[name] = (errors, theirs["loss"] - loss, float(logits.std()), theirs["text"], theirs["uncached"])
    assert wrong == {}
    whole = {
        "normalized",
        "randomized",
        "abacus",
        "coupling",
        "short_conv",
        *(f"mixer-{name}" for name in names("mixer")),
    }
    assert {name for name, theirs in found.items() if not theirs["cacheable"]} == whole
