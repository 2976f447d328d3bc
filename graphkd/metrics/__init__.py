"""Numbers to stand beside figures and in tables: of plans, of neighbourhoods, of representations, of a batch graph.

Functions of tensors on any device, in float32 at least; students are rows, teachers columns. None carries a gradient:
they are looked at, and never minimised.
"""

from graphkd.metrics.alignment import cka as cka
from graphkd.metrics.alignment import correlation_gap as correlation_gap
from graphkd.metrics.alignment import layer_cka as layer_cka
from graphkd.metrics.neighbourhoods import Missed as Missed
from graphkd.metrics.neighbourhoods import most_missed as most_missed
from graphkd.metrics.neighbourhoods import neighbour_overlap as neighbour_overlap
from graphkd.metrics.neighbourhoods import neighbours as neighbours
from graphkd.metrics.plans import class_purity as class_purity
from graphkd.metrics.plans import diagonal_mass as diagonal_mass
from graphkd.metrics.plans import effective_partners as effective_partners
from graphkd.metrics.plans import plan_entropy as plan_entropy
from graphkd.metrics.summary import GraphSummary as GraphSummary
from graphkd.metrics.summary import summarise as summarise
