"""python -m posexp"""

import sys

from posexp.cli import main

sys.exit(main())
