"""Published methods, one file each: a function that composes existing parts into a :class:`~graphkd.loss.Criterion`."""

from graphkd.losses.kd import kd as kd
from graphkd.losses.otgd import otgd as otgd
