"""Figures of batch graphs, plans and training curves, and one page to show them on; nothing here is ever minimised.

Every ``plot_`` function draws on the axes it is given, or on those of a new figure that pyplot does not know of, and
returns them. Students are rows and left, teachers columns and right; a class looks the same in every figure.
"""

from graphkd.viz.before_after import plot_before_after as plot_before_after
from graphkd.viz.class_cost import plot_class_cost as plot_class_cost
from graphkd.viz.correlation_gap import plot_correlation_gap as plot_correlation_gap
from graphkd.viz.embedding import plot_embedding as plot_embedding
from graphkd.viz.graph import graph_layout as graph_layout
from graphkd.viz.graph import plot_graph as plot_graph
from graphkd.viz.history import plot_history as plot_history
from graphkd.viz.networks import Networks as Networks
from graphkd.viz.networks import to_networkx as to_networkx
from graphkd.viz.plan import plot_plan as plot_plan
from graphkd.viz.report import Report as Report
from graphkd.viz.sinkhorn import plot_sinkhorn as plot_sinkhorn
from graphkd.viz.transport import plot_transport as plot_transport
