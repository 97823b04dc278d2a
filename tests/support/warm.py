"""What every command imports or looks up first: done once, in the server that the commands are forked from."""

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
posexp.cli.main.register_plugins()  # which says where posexp's plugin is
Plugins.instance()
for begun in (False, True):
    cpu.choose_matmul(begun)
