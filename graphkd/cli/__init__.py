"""The command ``graphkd``."""

from graphkd.cli.commands import COMMANDS as COMMANDS
from graphkd.cli.program import main as main
