"""Both networks' samples in one frame, and who is matched with whom."""

from collections.abc import Sequence
from typing import Literal

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from graphkd import checks
from graphkd.measures import unit
from graphkd.typing import UNLABELLED
from graphkd.viz.inputs import (
    Groups,
    Labels,
    Plan,
    axes_or_new,
    both_classes,
    by_class,
    class_name,
    groups_of,
    mass_shares,
    read_plan,
    verdicts,
)
from graphkd.viz.palette import INK, VERDICTS, class_colour, class_marker, draw_mass, draw_nodes, mass_handles

MOST_SAMPLES = 500
MOST_CLASSES = 40
LEGEND_ROWS = 20


def plot_embedding(
    student: Float[Tensor, "n d"],
    teacher: Float[Tensor, "m e"],
    *,
    plan: Plan | None = None,
    labels: Labels | None = None,
    teacher_labels: Labels | None = None,
    class_names: Sequence[str] | None = None,
    method: Literal["tsne", "pca"] = "tsne",
    seed: int = 0,
    ax: Axes | None = None,
    title: str | None = None,
    top: int = 1,
) -> Axes:
    """Draw both networks' samples in one frame: students filled, teachers hollow, couplings as thin lines.

    Rows of one width are embedded together, scaled to length one. They are not centred: where the two networks make
    two clouds, a cost between their rows sees them apart as well. Rows of different width cannot meet; there each
    sample is described by its cosine similarities to the drawn samples within its own network, less their mean and over
    their deviation. What is near in t-SNE is near in the features, but distances between clouds, and their sizes, mean
    nothing; those of PCA do.

    Lines lead from each student to its strongest partners in the plan; those to another class are highlighted by colour
    and dashes, without labels those to another sample, if there are as many students as teachers. The legend tells
    their shares of the whole plan's mass. Without a plan the lines join the two rows of one sample. Of more than 500
    samples 500 are drawn, by chance and the same on both sides if there are as many students as teachers, with the
    lines of which both ends are drawn; the label says so.

    Args:
        student: Rows (n d).
        teacher: Rows (m e); where e is not d, of the same samples, m = n.
        plan: P (n m), or the comparison that holds it.
        labels: Class of each student row (n), -100 for none; mass from or to such a row is neither right nor wrong.
        teacher_labels: Class of each teacher row (m), by default ``labels``; needed with labels where m is not n.
        class_names: The name of class c at place c; by default c itself. More than 40 classes are not named.
        method: ``tsne``: t-distributed stochastic neighbour embedding, with a perplexity of 30, or a third of the other
            points where there are few. ``pca``: the first two principal components.
        seed: Of the choice among many samples, and of t-SNE, which starts from the PCA with a thousandth of noise.
        ax: Where to draw; by default on a new figure.
        title: Of the axes.
        top: At most that many lines per student.

    Raises:
        ValueError: For rows that are not finite matrices, of different width and number, for a plan or labels that do
            not fit them, for top < 1, and for a method that is not known.

    Source: van der Maaten, Hinton, "Visualizing Data using t-SNE" (JMLR 2008).

    >>> generator = torch.Generator().manual_seed(0)
    >>> student = torch.randn(6, 4, generator=generator)
    >>> ax = plot_embedding(student, student + 0.1, plan=torch.eye(6) / 6, labels=[0, 0, 0, 1, 1, 1], method="pca")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['student', 'teacher', 'same class: 100 %', 'another class: 0 %', '0', '1']
    """
    checks.at_least("top", top, 1)
    checks.one_of("method", method, ("tsne", "pca"))
    n, m = _sizes(student, teacher)
    classes = both_classes(labels, teacher_labels, n, m)
    read = None if plan is None else _plan_of(plan, n, m)
    chosen = _sample(n, seed), _sample(m, seed)
    points, what = _points(student, teacher, chosen)
    places, how = _embedded(points, method, seed)
    split = len(chosen[0])
    ax = axes_or_new(ax, 6.6, 5.2)
    pairs = _pairs(read, chosen, n == m, top)
    groups = groups_of(classes, n, m)
    found = (
        np.zeros(len(pairs), dtype=int) if read is None else verdicts(groups[0][pairs[:, 0]], groups[1][pairs[:, 1]])
    )
    ends = np.stack([np.searchsorted(chosen[0], pairs[:, 0]), split + np.searchsorted(chosen[1], pairs[:, 1])], axis=1)
    draw_mass(ax, places[ends], found, np.full(len(pairs), np.clip(60 / split, 0.3, 1)))
    sides = None if classes is None else (classes[0][chosen[0]], classes[1][chosen[1]])
    named = _draw_nodes(ax, places, split, sides, class_names)
    if read is not None:
        lines = mass_handles(mass_shares(read, classes)[1], "sample" if classes is None else "class")
    else:
        lines = [Line2D([], [], color=VERDICTS[0].colour, lw=1, label="same sample")] if n == m else []
    _legend(ax, lines, named)
    said = [f"{how} of {what}"]
    if read is not None:
        said.append(f"lines: {f'{top} strongest partners' if top > 1 else 'strongest partner'} of each student")
    if (split, len(chosen[1])) != (n, m):
        sides_drawn = f"samples of {n}" if n == m else f"of {n} students, {len(chosen[1])} of {m} teachers"
        said.append(f"drawn: {split} {sides_drawn}, lines between these")
    ax.set_xlabel("\n".join(said))
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xticks=[], yticks=[], title=title or "")
    ax.spines[:].set_color("#D9D9D9")
    return ax


def _sizes(student: Tensor, teacher: Tensor) -> tuple[int, int]:
    """How many rows each has, both checked."""
    for name, x in (("student", student), ("teacher", teacher)):
        checks.rows(name, x)
        if x.dim() != 2:
            raise ValueError(f"{name} needs rows of shape (n, d), got shape {tuple(x.shape)}")
    if student.shape[1] != teacher.shape[1] and len(student) != len(teacher):
        raise ValueError(
            "needs rows of one width, or as many students as teachers, "
            f"got shapes {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    return len(student), len(teacher)


def _plan_of(plan: Plan, n: int, m: int) -> Tensor:
    """The plan, read and of the right shape."""
    read = read_plan(plan)
    if read.shape != (n, m):
        raise ValueError(f"needs a plan of shape ({n}, {m}) for these rows, got shape {tuple(read.shape)}")
    return read


def _sample(n: int, seed: int) -> np.ndarray:
    """At most 500 of n places, in order, by chance: an even step would meet one class where a loader deals them."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:MOST_SAMPLES])


def _points(student: Tensor, teacher: Tensor, chosen: Groups) -> tuple[np.ndarray, str]:
    """What is embedded of the chosen rows, students first, and what it is called."""
    rows = [
        unit(x.detach().cpu()[torch.from_numpy(places)].double())
        for x, places in zip((student, teacher), chosen, strict=True)
    ]
    if student.shape[1] == teacher.shape[1]:
        return torch.cat(rows).numpy(), "rows at unit length"
    within = [x @ x.mT for x in rows]
    # One network's samples may all be alike and the other's not, which would part the clouds.
    parts = [(s - s.mean()) / s.std().clamp_min(torch.finfo(s.dtype).tiny) for s in within]
    return torch.cat(parts).numpy(), "standardised similarities within each network"


def _embedded(points: np.ndarray, method: str, seed: int) -> tuple[np.ndarray, str]:
    """Places (n 2), and what they are called."""
    # scikit-learn brings it.
    from threadpoolctl import threadpool_limits

    if (points == points[0]).all():
        return np.zeros((len(points), 2)), "one place"
    pca = PCA(min(2, *points.shape), random_state=seed)
    places = pca.fit_transform(points)
    shares = " and ".join(f"{share:.0%}".replace("%", " %") for share in pca.explained_variance_ratio_)
    places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    if method == "pca":
        return places, f"PCA ({shares} of the variance)"
    noise = np.random.default_rng(seed).standard_normal(places.shape)
    # The usual start is small; the noise parts rows that are equal and fills an axis that is empty.
    start = 1e-4 * (places / places[:, 0].std() + 1e-3 * noise)
    perplexity = min(30.0, (len(points) - 1) / 3)
    # So few points keep no second thread busy, and on a busy machine threads wait for each other: 40 s instead of one.
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(points), "t-SNE"


def _pairs(read: Tensor | None, chosen: Groups, paired: bool, top: int) -> np.ndarray:
    """Which student and teacher a line joins (p 2), both of them drawn."""
    if read is None:
        return np.stack([chosen[0]] * 2, axis=1) if paired else np.zeros((0, 2), dtype=int)
    rows = read.index_select(0, torch.from_numpy(chosen[0])).to_dense()
    masses, partners = rows.topk(min(top, rows.shape[1]))
    pairs = np.stack([np.repeat(chosen[0], masses.shape[1]), partners.numpy().ravel()], axis=1)
    return pairs[(masses.numpy().ravel() > 0) & np.isin(pairs[:, 1], chosen[1])]


def _draw_nodes(
    ax: Axes, places: np.ndarray, split: int, sides: Groups | None, class_names: Sequence[str] | None
) -> list[Line2D]:
    """Students filled, teachers hollow; a legend's handle per class."""
    at, size = dict(enumerate(places)), float(np.clip(4000 / len(places), 9, 60))
    for side, nodes in enumerate((range(split), range(split, len(places)))):
        own = None if sides is None else sides[side]
        for part in draw_nodes(nx.empty_graph(len(places)), nodes, at, own, ax, size, class_names):
            part.set_gid(("student", "teacher")[side])
            if side == 1:
                unknown = part.get_label() == class_name(UNLABELLED, None)
                part.set(edgecolor=part.get_edgecolor() if unknown else part.get_facecolor())
                part.set(facecolor="none", linewidth=0.9)
    if sides is None:
        return []
    drawn = np.unique(np.concatenate(sides))
    return [
        Line2D([], [], ls="", marker=class_marker(c), color=class_colour(c), ms=6, label=class_name(c, class_names))
        for c in drawn[by_class(drawn)].tolist()
    ]


def _legend(ax: Axes, lines: list[Line2D], named: list[Line2D]) -> None:
    """Networks, lines, and at most 40 classes, beside the axes."""
    networks = [
        Line2D([], [], ls="", marker="o", ms=6, mec=INK, mfc=INK if name == "student" else "none", label=name)
        for name in ("student", "teacher")
    ]
    handles = [*networks, *lines, *(named if len(named) <= MOST_CLASSES else [])]
    ax.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        ncols=-(-len(handles) // (LEGEND_ROWS + 4)),
        frameon=False,
        fontsize=8,
    )
