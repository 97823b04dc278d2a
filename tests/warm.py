"""What every command imports or looks up first: done once, in the server that the commands are forked from."""

import datasets  # noqa: F401
import tokenizers  # noqa: F401
import torch._dynamo
from hydra.core.plugins import Plugins

import posexp.cli
import posexp.compare.table
import posexp.evaluation.evaluate
import posexp.report.command
import posexp.report.curves
import posexp.train
from posexp import machine

torch.set_num_threads(1)
posexp.cli.register()  # which says where posexp's plugin is
Plugins.instance()
for begun in (False, True):
    machine.choose_matmul(begun)
