// The batch graphs: the same nodes at the same places in both, so that edges can be compared by eye.

const SIDE = 100;
const MARGIN = 8;

/** Where a node stands in the drawing. */
const spot = ([x, y]) => [MARGIN + x * (SIDE - 2 * MARGIN), MARGIN + y * (SIDE - 2 * MARGIN)];

/** Lines between pairs of nodes as one path. */
function linesPath(pairs, spots) {
  const n = spots.length;
  return [...pairs]
    .map((code) => [spots[Math.floor(code / n)], spots[code % n]])
    .map(([[x, y], [u, v]]) => `M${x.toFixed(2)} ${y.toFixed(2)}L${u.toFixed(2)} ${v.toFixed(2)}`)
    .join("");
}

/** Nodes that are joined with node i. */
function neighboursOf(pairs, n, i) {
  const found = new Set();
  for (const code of pairs) {
    const [low, high] = [Math.floor(code / n), code % n];
    if (low === i) found.add(high);
    if (high === i) found.add(low);
  }
  return found;
}

/** A drawing with its edges sorted by whether the other graph has them too. */
function drawGraph(view) {
  const { nodes, spots, own, other, hidden, name } = view;
  const n = nodes.length;
  const seen = [...own].filter((code) => !hidden.has(Math.floor(code / n)) && !hidden.has(code % n));
  const groups = { common: seen.filter((code) => other.has(code)) };
  groups[name === "student" ? "extra" : "missing"] = seen.filter((code) => !other.has(code));
  const drawing = svg("svg", {
    viewBox: `0 0 ${SIDE} ${SIDE}`, tabindex: 0, role: "application", "aria-roledescription": "graph",
    "aria-label": `${name}'s graph of ${n} nodes and ${own.size} edges; arrow keys move from node to node`,
  });
  for (const [kind, pairs] of Object.entries(groups)) {
    drawing.append(svg("path", { class: `edges all ${kind}`, d: linesPath(pairs, spots) }));
  }
  for (const kind of Object.keys(groups)) drawing.append(svg("path", { class: `edges own ${kind}` }));
  const size = Math.min(3, Math.max(1.15, 16 / Math.sqrt(n)));
  const marks = nodes.map((node, i) => {
    const { colour, marker } = look(node.class);
    const [x, y] = spots[i];
    const shape = svg("path", { class: "node", d: SHAPES[marker], fill: colour, stroke: "var(--edge)", "stroke-width": 0.18 });
    shape.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${size.toFixed(2)})`);
    if (hidden.has(i)) shape.setAttribute("display", "none");
    return shape;
  });
  const rings = svg("g", { class: "rings" });
  drawing.append(...marks, rings);
  return { drawing, marks, rings, groups, size, spots, n };
}

/** Highlight node i (or nothing, for null): its edges, its neighbours, and rings as wide as the shares given. */
function highlight(graph, i, shares) {
  graph.drawing.classList.toggle("near", i !== null);
  graph.rings.replaceChildren();
  const on = new Set(i === null ? [] : [i]);
  for (const [kind, pairs] of Object.entries(graph.groups)) {
    const own = i === null ? [] : pairs.filter((code) => Math.floor(code / graph.n) === i || code % graph.n === i);
    graph.drawing.querySelector(`.own.${kind}`).setAttribute("d", linesPath(own, graph.spots));
    for (const node of neighboursOf(own, graph.n, i)) on.add(node);
  }
  for (const [node, share] of shares) {
    on.add(node);
    graph.rings.append(ring(graph, node, "ring", 0.3 + 1.4 * Math.sqrt(share)));
  }
  if (i !== null) graph.rings.append(ring(graph, i, "ring self", 0.6));
  graph.marks.forEach((shape, node) => shape.classList.toggle("on", on.has(node)));
}

function ring(graph, node, kind, width) {
  const [cx, cy] = graph.spots[node];
  const far = kind === "ring" ? 1.2 : 0.4;
  return svg("circle", { class: kind, cx, cy, r: (graph.size * 1.25 + far).toFixed(2), "stroke-width": width.toFixed(2) });
}

/** The node nearest to a point of the page, if it is near at all. */
function nodeUnder(graph, event, hidden) {
  const box = graph.drawing.getBoundingClientRect();
  const [x, y] = [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  const near = nearest(graph.spots, hidden, ([u, v]) => Math.hypot(u - x, v - y));
  return near && near.far < 5 ? near.node : null;
}

const TOWARDS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The node that an arrow key leads to from another: near, and in that direction. */
function nodeTowards(graph, from, key, hidden) {
  const [dx, dy] = TOWARDS[key];
  const [x, y] = graph.spots[from];
  const found = nearest(graph.spots, hidden, ([u, v], node) => {
    const along = (u - x) * dx + (v - y) * dy;
    const aside = Math.abs((u - x) * dy) + Math.abs((v - y) * dx);
    return node === from || along <= 0 || aside > 2 * along ? Infinity : along + 2 * aside;
  });
  return found ? found.node : from;
}

function nearest(spots, hidden, distance) {
  let best = null;
  spots.forEach((point, node) => {
    const far = hidden.has(node) ? Infinity : distance(point, node);
    if (far < (best ? best.far : Infinity)) best = { node, far };
  });
  return best;
}

/** What the lines mean, with how many there are. */
function graphLegend(student, teacher) {
  const sample = (kind) => svg(
    "svg", { viewBox: "0 0 9 2", width: 36, height: 8, "aria-hidden": "true" },
    svg("path", { class: `edges own ${kind}`, d: "M0 1L9 1" }),
  );
  return [
    element("li", {}, sample("common"), `${student.groups.common.length} edges in both`),
    element("li", {}, sample("extra"), `${student.groups.extra.length} that the student has too many`),
    element("li", {}, sample("missing"), `${teacher.groups.missing.length} that the student lacks`),
  ];
}
