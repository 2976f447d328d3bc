"""How a class, or a curve, looks in every figure: a colour, and a shape for where the colours run out.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), and three dark ones. Any two of the ten are at
least 15 CIELAB units apart, for normal sight as well as for simulated protanopia and deuteranopia.
"""

from collections.abc import Sequence

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from graphkd.typing import UNLABELLED, Real
from graphkd.viz.inputs import by_class, class_name

COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#332288",
    "#661100",
    "#000000",
    "#F0E442",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">")
LINES = ("-", "--", "-.", ":")

INK = "#404040"
GREY = "#D9D9D9"
RIGHT = COLOURS[0]
WRONG = COLOURS[3]


def class_colour(index: int) -> str:
    """The colour of a class, fixed by its index so that figures of different batches agree; unlabelled is grey.

    >>> class_colour(0), class_colour(10), class_colour(-100)
    ('#0072B2', '#0072B2', '#D9D9D9')
    """
    return GREY if index == UNLABELLED else COLOURS[index % len(COLOURS)]


def class_marker(index: int) -> str:
    """The shape of a class: ten classes share one, so that 100 classes differ in colour or shape.

    >>> class_marker(9), class_marker(10), class_marker(-100)
    ('o', 's', 'o')
    """
    return "o" if index == UNLABELLED else MARKERS[index // len(COLOURS) % len(MARKERS)]


def draw_nodes(
    graph: nx.Graph,
    nodes: Sequence[int],
    positions: dict[int, np.ndarray],
    classes: np.ndarray | None,
    ax: Axes,
    size: Real,
    class_names: Sequence[str] | None = None,
) -> list[PathCollection]:
    """Draw nodes of a networkx graph, a collection per class in the order of the classes, named for a legend.

    Args:
        graph: Any networkx graph that has the nodes.
        nodes: Which of its nodes.
        positions: Of each node, (2).
        classes: Of each node (n), or None to draw all alike.
        ax: Where to draw.
        size: In points squared.
        class_names: The name of class c at place c.

    >>> from graphkd.viz.inputs import axes_or_new
    >>> positions = {i: np.array([i, 0.0]) for i in range(3)}
    >>> parts = draw_nodes(nx.path_graph(3), [0, 1, 2], positions, np.array([1, 0, 1]), axes_or_new(None, 2, 2), 40)
    >>> [(part.get_label(), len(part.get_offsets())) for part in parts]
    [('0', 1), ('1', 2)]
    """
    if classes is None:
        groups = [(list(nodes), INK, "o", "white", None)]
    else:
        present = dict.fromkeys(classes[by_class(classes)].tolist())
        groups = [
            (
                [node for node, own in zip(nodes, classes, strict=True) if own == c],
                class_colour(c),
                class_marker(c),
                "#808080" if c == UNLABELLED else "white",
                class_name(c, class_names),
            )
            for c in present
        ]
    return [
        nx.draw_networkx_nodes(
            graph,
            positions,
            nodelist=members,
            node_size=size,
            node_color=colour,
            node_shape=marker,
            edgecolors=edge,
            linewidths=0.5,
            label=name,
            ax=ax,
        )
        for members, colour, marker, edge, name in groups
    ]
