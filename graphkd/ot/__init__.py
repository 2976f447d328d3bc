"""Transport solvers on plain tensors: costs and masses in, a Transport out. They know no graph."""

from graphkd.ot.divergence import sinkhorn_divergence as sinkhorn_divergence
from graphkd.ot.gaussian import GaussianTransport as GaussianTransport
from graphkd.ot.gaussian import gaussian as gaussian
from graphkd.ot.ipot import ipot as ipot
from graphkd.ot.problem import Relative as Relative
from graphkd.ot.shared import shared_sinkhorn as shared_sinkhorn
from graphkd.ot.sinkhorn import sinkhorn as sinkhorn
