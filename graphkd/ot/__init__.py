"""Transport solvers on plain tensors: costs and masses in, a Transport out. They know no graph."""

from graphkd.ot.problem import Relative as Relative
from graphkd.ot.sinkhorn import sinkhorn as sinkhorn
