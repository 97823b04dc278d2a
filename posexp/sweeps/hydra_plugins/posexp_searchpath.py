"""A search path on which the user's own folder of configs comes before posexp's.

Hydra itself puts --config-dir last, so that an own scheme with the name of one of posexp's would never be found.
"""

import sys
from itertools import pairwise
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OwnConfigsFirst(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        own = dict(pairwise(sys.argv)).get("--config-dir")
        if own is not None:
            search_path.prepend("own", f"file://{Path(own).expanduser().resolve()}")
