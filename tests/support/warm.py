"""What every command imports or looks up first: done once, in the server that the commands are forked from."""

import sys
from pathlib import Path

import datasets  # noqa: F401
import tokenizers  # noqa: F401
import torch._dynamo
from hydra.core.plugins import Plugins

import posexp.cli.main
import posexp.compare.table
import posexp.evaluation.evaluate
import posexp.report.command
import posexp.report.curves
import posexp.training.train
from posexp.model import cpu

torch.set_num_threads(1)
sys.path.append(str(Path(posexp.__file__).parent / "sweeps"))  # posexp's plugin
Plugins.instance()
for begun in (False, True):
    cpu.choose_matmul(begun)
