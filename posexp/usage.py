"""What the command line says of itself: all commands with an example each, and the form of each."""

USAGE = """posexp: how decoder language models trained on short sequences behave on longer ones

  posexp train +scheme=rope                 train on short sequences, then evaluate at longer lengths
  posexp train -m +scheme=rope,alibi seed=0,1,2
                                            the same for every combination
  posexp eval --lengths 512,2048,8192       measure every finished run of the group
  posexp report --html                      tables, curves and verdicts of the group, and one page of all
  posexp compare alibi rope                 which is better, with interval and p
  posexp power alibi rope                   how many seeds it takes to tell
  posexp runs                               what was trained, and how far it is
  posexp schemes                            the positional schemes, windows and transforms there are
  posexp check rope                         what a scheme promises, measured
  posexp bench rope alibi                   how fast schemes are, in how much memory
  posexp inspect 'rope-*'                   pictures of what a trained run's scheme does
  posexp export 'rope-*'                    a trained run as a folder that transformers loads

posexp <command> --help lists a command's knobs. TAB completion: eval "$(posexp -sc install=bash)"
"""

EXAMPLES = {
    "train": "posexp train +scheme=<name> [key=value …] [-m [--detach] [hydra/launcher=<name>]]",
    "eval": "posexp eval --lengths 512,2048,8192 [--runs 'glob'] [+transform=a,b] [window=<name>] [key=value …]",
    "report": "posexp report [--html] [--runs 'glob'] [key=value …]",
    "compare": "posexp compare <base> <curve, or a quoted glob> … [key=value …]",
    "power": "posexp power <base> <curve> [difference=0.01] [power=0.8] [key=value …]",
    "runs": "posexp runs [--group 'glob']",
    "schemes": "posexp schemes [name …]",
    "check": "posexp check [scheme …] [key=value …]",
    "bench": "posexp bench [scheme …] [--peers] [key=value …]",
    "inspect": "posexp inspect [run, or a glob …] [key=value …]",
    "export": "posexp export [run, or a glob …] [folder=…] [key=value …]",
}
