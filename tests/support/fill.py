"""The script scripts/fill as a module."""

import importlib.machinery
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


@cache
def load_fill() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("fill", str(ROOT / "scripts" / "fill"))
    spec = importlib.util.spec_from_loader("fill", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
