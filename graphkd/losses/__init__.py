"""Published methods, one file each: a function that composes existing parts into a :class:`~graphkd.loss.Criterion`."""

from graphkd.losses.crd import crd as crd
from graphkd.losses.fgw import fgw as fgw
from graphkd.losses.kd import kd as kd
from graphkd.losses.otgd import otgd as otgd
from graphkd.losses.plan_matching import plan_matching as plan_matching
from graphkd.losses.rtot import rtot as rtot
from graphkd.losses.wcord import wcord as wcord
from graphkd.losses.wkd_features import wkd_features as wkd_features
from graphkd.losses.wkd_logits import wkd_logits as wkd_logits
