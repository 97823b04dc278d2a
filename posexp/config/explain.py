"""The explanation of an error in one line, with what to type instead."""

import errno
import re

from posexp.config import hints
from posexp.config.sections import config_dir
from posexp.errors import PosexpError, did_you_mean

EXTRAS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "joblib"}
NO_SLURM = "there is no SLURM on this machine: sweep where sbatch is installed, or without hydra/launcher"


def explain_error(error: Exception, command: str) -> str:
    """Return one line that explains an error of a command and says what to type instead."""
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, PosexpError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        remedy = "; free some space and repeat the command to continue" if full else ""
        return error.strerror + (f": {error.filename}" if error.filename else "") + remedy
    if 'Could not detect "srun"' in str(error):  # submitit's message
        return NO_SLURM
    if "INTERVAL_SWEEP" in str(error):
        return "an interval has no list of values: sweep a list, as in 1e-3,3e-3, or range(…)"
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        return f"unexpected {type(error).__name__}: {squeezed(str(error))} (HYDRA_FULL_ERROR=1 shows where)"
    if isinstance(error, OverrideParseException):
        word = str(error.override)
        if re.fullmatch(r"[\w.,*-]+", word):
            return f"{word!r} is not key=value{hints.of_word(command, word)}"
        return f"{word!r} is not key=value; special characters need quotes, as in \"key='a (b)'\""
    text = str(error)
    if twice := re.search(r"Multiple values for (\S+)\. To override", text):
        return f"{twice[1]} is chosen twice; an experiment chooses it by `override /{twice[1]}: <name>`"
    if unchosen := re.search(r"You must specify '(\w+)'", text):
        return f"choose a {unchosen[1]} with +{unchosen[1]}=<name>; posexp schemes lists all"
    if isinstance(error.__cause__, (HydraException, OmegaConfBaseException)):
        text += "\n" + str(error.__cause__)
    if missing := re.search(r"(?:Could not find|In '[^']*': Could not load) '([^']+)'", text):
        group, _, name = missing[1].rpartition("/")
        if (launcher := name.removesuffix("_schema")) in EXTRAS:
            return f"hydra/launcher={launcher} comes with an extra: pip install 'posexp[{EXTRAS[launcher]}]'"
        names = re.findall(r"^\s*([\w.-]+)\s*$", text.partition("Available options in")[2].partition("\n")[2], re.M)
        names = names or hints.names_of(group)
        return f"no {group} {name!r}{did_you_mean(name, names)}; there are {', '.join(names)}"
    if replaced := re.search(r"In '([^']+)': Could not override '(\w+)@", text):
        return f"{replaced[1]} sets options of the {replaced[2]} that it chooses: leave out {replaced[2]}=…"
    if unknown := re.search(r"Could not override '([^']+)'", text):
        key = unknown[1].lstrip("+")
        if "not in" in text or "No match" in text:
            typed = re.search(r"To append to your config use \+[^=\s]+=(.*)", text)
            return f"no key {key!r}{hints.of_key(command, key, typed[1] if typed else '…')}"
    if ambiguous := re.search(r"Ambiguous value for argument '([^=]+)=(.+?)'\n", text):
        key, value = ambiguous.groups()
        is_group = (config_dir() / key.lstrip("+").partition("@")[0]).is_dir()
        listed = "" if is_group else f", or write a list, {key}=[{value}]"
        return f"{key}={value} names several values: add -m to run each{listed}"
    text = re.sub(r"To append to your (config|default list) use \+\S+", "", text)
    text = re.sub(r"(reference_type|object_type)=\S+", "", text)
    if full_key := re.search(r"full_key: (\S+)", text):
        key = full_key[1]
        text = re.sub(r"Error merging override \S+", "", text.replace(full_key[0], ""))
        return f"{key}: {squeezed(text)}"
    return squeezed(text)


def squeezed(text: str) -> str:
    return " ".join(text.split())
