"""Training with Lightning: devices, precision, checkpoints and loggers are its own."""

from graphkd.training.fit import evaluate as evaluate
from graphkd.training.fit import fit as fit
from graphkd.training.history import History as History
from graphkd.training.module import DistillationModule as DistillationModule
from graphkd.training.schedules import ConstantThenCosine as ConstantThenCosine
from graphkd.training.schedules import LinearWarmup as LinearWarmup
from graphkd.training.watch import SaveSnapshots as SaveSnapshots
