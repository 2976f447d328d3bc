"""How a class, a curve, or mass of a plan looks in every figure, in colour and in grey print.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), and three dark ones. Any two of the ten are at
least 15 CIELAB units apart, for normal sight as well as for simulated protanopia and deuteranopia.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.lines import Line2D

from graphkd.typing import UNLABELLED, Real
from graphkd.viz.inputs import by_class, class_name, percent

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
Line = str | tuple[int, tuple[int, ...]]
LINES: tuple[Line, ...] = ("-", "--", "-.", ":", (0, (7, 1, 1, 1, 1, 1)))
"""Five, so that of ten curves those of one line differ in lightness."""

INK = "#404040"
GREY = "#D9D9D9"
THINNEST = 1e-3
"""Width of a line in points, at least."""
RIGHT = COLOURS[0]
WRONG = COLOURS[3]


class Look(NamedTuple):
    """How the lines of a plan look, and what they are called. Wrong ones are dashed and darker, for grey print."""

    colour: str
    alpha: float
    dash: tuple[float, float] | None
    name: str


VERDICTS = {
    0: Look("#909090", 0.6, None, "unknown"),
    1: Look(RIGHT, 0.6, None, "right"),
    -1: Look(WRONG, 0.9, (3.7, 1.6), "wrong"),
}
"""Lines by what :func:`graphkd.viz.inputs.verdicts` says of them, in the order in which they are drawn."""


def class_colour(index: int) -> str:
    """The colour of a class, fixed by its index so that figures of different batches agree; unlabelled is grey.

    >>> class_colour(0), class_colour(10), class_colour(-100)
    ('#0072B2', '#0072B2', '#D9D9D9')
    """
    return GREY if index == UNLABELLED else COLOURS[index % len(COLOURS)]


def curve_look(index: int) -> tuple[str, Line]:
    """Colour and line of a curve; fifty differ in one of them.

    >>> curve_look(1), curve_look(11)
    (('#E69F00', '--'), ('#E69F00', '-.'))
    """
    turn, colour = divmod(index, len(COLOURS))
    return COLOURS[colour], LINES[(colour + turn) % len(LINES)]


def class_marker(index: int) -> str:
    """The shape of a class: ten in a row have ten shapes, for grey print, and 100 classes differ in colour or shape.

    >>> class_marker(0), class_marker(1), class_marker(10), class_marker(-100)
    ('o', 's', 's', 'o')
    """
    shift = index // len(COLOURS)
    return "o" if index == UNLABELLED else MARKERS[(index + shift) % len(MARKERS)]


def draw_mass(
    ax: Axes, ends: Shaped[np.ndarray, "e 2 2"], found: Shaped[np.ndarray, " e"], widths: Shaped[np.ndarray, " e"]
) -> None:
    """Draw lines from students to teachers, a collection for each verdict that occurs, below the nodes.

    Args:
        ax: Where to draw; its limits stay as they are.
        ends: Places of the student and of the teacher of each line.
        found: Whether each line is right (1), wrong (-1) or neither (0).
        widths: In points.

    >>> from graphkd.viz.inputs import axes_or_new
    >>> ax = axes_or_new(None, 2, 2)
    >>> draw_mass(ax, np.zeros((3, 2, 2)), np.array([1, -1, 1]), np.ones(3))
    >>> [(lines.get_label(), len(lines.get_linewidths())) for lines in ax.collections]
    [('right', 2), ('wrong', 1)]
    """
    for verdict, look in VERDICTS.items():
        chosen = found == verdict
        if chosen.any():
            # Matplotlib measures dashes in widths: those of a line too thin to be seen would be too many to be drawn.
            wide = np.maximum(widths[chosen], THINNEST).tolist()
            lines = LineCollection(list(ends[chosen]), colors=look.colour, linewidths=wide, alpha=look.alpha, zorder=0)
            lines.set(linestyle=[_style(look, width) for width in wide], label=look.name)
            ax.add_collection(lines)


def _style(look: Look, width: Real) -> str | tuple[Real, tuple[Real, Real]]:
    """Dashes in widths, of thin lines in points."""
    if look.dash is None:
        return "-"
    longer = max(1.0, 1 / width)
    return 0, (longer * look.dash[0], longer * look.dash[1])


def mass_handles(shares: Mapping[int, Real], what: str) -> list[Line2D]:
    """A legend's handles for the lines of :func:`draw_mass`, with the share of the plan's mass that each stands for.

    Args:
        shares: As :func:`~graphkd.viz.inputs.mass_shares` gives them.
        what: What right mass stays within: ``class`` or ``sample``.

    >>> [handle.get_label() for handle in mass_handles({1: 0.75, -1: 0.25, 0: 0.0}, "class")]
    ['same class: 75 %', 'another class: 25 %']
    """
    handles = []
    for verdict, name in {1: f"same {what}", -1: f"another {what}", 0: "unlabelled"}.items():
        if shares and (verdict or shares[verdict] > 0):
            look, label = VERDICTS[verdict], f"{name}: {percent(shares[verdict])}"
            handles.append(Line2D([], [], color=look.colour, ls=_style(look, 2), lw=2, alpha=look.alpha, label=label))
    return handles


def draw_nodes(
    graph: nx.Graph,
    nodes: Sequence[int],
    positions: dict[int, np.ndarray],
    classes: np.ndarray | None,
    ax: Axes,
    size: Real | np.ndarray,
    class_names: Sequence[str] | None = None,
) -> list[PathCollection]:
    """Draw nodes of a networkx graph, a collection per class in the order of the classes, named for a legend.

    Args:
        graph: Any networkx graph that has the nodes.
        nodes: Which of its nodes.
        positions: Of each node, (2).
        classes: Of each node (n), or None to draw all alike.
        ax: Where to draw.
        size: In points squared, of all or of each node (n).
        class_names: The name of class c at place c.

    >>> from graphkd.viz.inputs import axes_or_new
    >>> positions = {i: np.array([i, 0.0]) for i in range(3)}
    >>> parts = draw_nodes(nx.path_graph(3), [0, 1, 2], positions, np.array([1, 0, 1]), axes_or_new(None, 2, 2), 40)
    >>> [(part.get_label(), len(part.get_offsets())) for part in parts]
    [('0', 1), ('1', 2)]
    """
    sizes = np.broadcast_to(np.asarray(size, dtype=np.float64), len(nodes))
    if classes is None:
        groups = [(np.arange(len(nodes)), INK, "o", "white", None)]
    else:
        groups = [
            (
                np.flatnonzero(classes == c),
                class_colour(c),
                class_marker(c),
                "#808080" if c == UNLABELLED else "white",
                class_name(c, class_names),
            )
            for c in dict.fromkeys(classes[by_class(classes)].tolist())
        ]
    return [
        nx.draw_networkx_nodes(
            graph,
            positions,
            nodelist=[nodes[i] for i in members.tolist()],
            node_size=sizes[members].tolist(),
            node_color=colour,
            node_shape=marker,
            edgecolors=edge,
            linewidths=0.5,
            label=name,
            ax=ax,
        )
        for members, colour, marker, edge, name in groups
    ]
