"""``python -m graphkd`` is the command ``graphkd``."""

import sys

from graphkd.cli import main

sys.exit(main())
