"""A distillation that fits in a minute and can be looked at."""

from graphkd.demo.experiment import METHODS as METHODS
from graphkd.demo.experiment import demo as demo
