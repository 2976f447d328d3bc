"""Transport solvers on plain tensors: costs and masses in, a Transport out. They know no graph."""

from graphkd.ot.candidates import carried as carried
from graphkd.ot.candidates import nearest_pairs as nearest_pairs
from graphkd.ot.divergence import sinkhorn_divergence as sinkhorn_divergence
from graphkd.ot.exact import exact as exact
from graphkd.ot.fused.lowrank import LowRank as LowRank
from graphkd.ot.gaussian import GaussianTransport as GaussianTransport
from graphkd.ot.gaussian import gaussian as gaussian
from graphkd.ot.gromov import fused_gromov as fused_gromov
from graphkd.ot.ipot import ipot as ipot
from graphkd.ot.problem import Relative as Relative
from graphkd.ot.sharded import sharded_sinkhorn as sharded_sinkhorn
from graphkd.ot.shared import shared_sinkhorn as shared_sinkhorn
from graphkd.ot.sinkhorn import sinkhorn as sinkhorn
from graphkd.ot.sparse import sparse_sinkhorn as sparse_sinkhorn
from graphkd.ot.trace import marginal_errors as marginal_errors
