// What is chosen, and what has to be drawn anew when a choice changes.

const at = (id) => document.getElementById(id);
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const PAUSE = 900;

const state = { step: page.steps.length - 1, term: page.terms[page.first], chosen: new Set(), cursor: null, pinned: false };
const drawn = { view: null, heat: null, graphs: null, pairs: null, hidden: new Set() };
const parts = { summary: element("div", { "aria-live": "polite" }), partners: element("div") };
let playing = null;

/** Whether a node's class is among those chosen. */
const isShown = (node) => state.chosen.size === 0 || (!node.remembered && state.chosen.has(node.class));

/** What of the chosen term is to be seen at the chosen step. */
function viewOf(term) {
  const rows = nodesOf(term.rows).map((node, place) => ({ ...node, place }));
  const columns = nodesOf(term.columns).map((node, place) => ({ ...node, place }));
  return {
    ...planAt(term, state.step), rowMass: term.mass[state.step], width: columns.length, paired: term.paired,
    rows: rows.filter(isShown), columns: columns.filter(isShown),
  };
}

function drawPlan() {
  const { term } = state;
  drawn.view = term.plan ? viewOf(term) : null;
  const some = drawn.view !== null && drawn.view.rows.length > 0 && drawn.view.columns.length > 0;
  if (!some) drawn.view = null;
  at("plan-drawn").hidden = !some;
  at("plan-note").textContent = some ? planWords(term) : term.note || "No node of this term is of the chosen classes.";
  if (!some) return;
  drawn.heat = paintHeat(at("cells"), at("heat").clientWidth, drawn.view);
  at("heat").setAttribute("aria-label", `Plan of ${term.name} at step ${page.steps[state.step].step}, ${drawn.view.rows.length} rows by ${drawn.view.columns.length} columns`);
  drawScale(term);
}

/** What rows and columns are, and what is left out. */
function planWords(term) {
  const sides = [["Rows", term.rows], ["columns", term.columns]].map(([where, side]) => {
    const what = `${side.network} ${{ sample: "samples", class: "classes" }[side.kind] ?? `${side.kind}s`}`;
    const memory = side.own < side.count ? `, then what the ${side.network}'s memory holds of others` : "";
    const some = side.index.length < side.count ? ` (${side.index.length} of ${side.count}, evenly chosen)` : "";
    return `${where} are ${what}${memory}${some}`;
  });
  const pairs = term.paired && term.rows.kind === "sample" ? " Orange corners mark the true pairs." : "";
  const blocks = term.rows.kind === "sample" && classes.size > 1 ? " Boxes outline the mass within a class." : "";
  const mean = term.note ? ` ${term.note}` : "";
  return `${sides.join(", ")}; the darker, the more mass.${blocks}${pairs}${mean}`.replace("darker", darkness.matches ? "brighter" : "darker");
}

function drawScale(term) {
  const ramp = element("i");
  ramp.style.background = rampGradient();
  const ticks = [0, 0.25, 1].map((share, i) => {
    const tick = element("span", { class: "tick" }, numeral(share * term.plan.scale));
    tick.style.flex = i === 1 ? "1" : "none";
    tick.style.textAlign = "center";
    return tick;
  });
  at("scale").replaceChildren(
    element("span", {}, "mass"),
    element("div", { class: "ramp" }, ramp, element("div", { class: "ticks" }, ...ticks)),
    element("span", {}, page.steps.length > 1 ? "the same at all steps" : ""),
  );
}

function drawGraphs() {
  const { term } = state;
  const has = Boolean(term.graphs);
  at("graphs").hidden = at("graph-legend").hidden = !has;
  drawn.graphs = drawn.pairs = null;
  at("graph-note").textContent = has
    ? `Nodes stand where springs along the teacher's edges put them at the last step, in both graphs and at all steps.${term.graphs.fewer ? " Only the heaviest edges are drawn." : ""} Point at one to see its neighbours; rings show where its mass goes.`
    : "This term's graphs have no edges that could be compared: it looks at the nodes alone.";
  if (!has) return;
  const nodes = nodesOf(term.rows);
  const spots = term.graphs.places.map(spot);
  const student = pairsAt(term.graphs.student, state.step);
  const teacher = pairsAt(term.graphs.teacher, state.step);
  drawn.hidden = new Set(nodes.flatMap((node, i) => (isShown(node) ? [] : [i])));
  drawn.pairs = { student, teacher, n: nodes.length };
  const shared = { nodes, spots, hidden: drawn.hidden };
  drawn.graphs = [
    drawGraph({ ...shared, own: student, other: teacher, name: "student" }),
    drawGraph({ ...shared, own: teacher, other: student, name: "teacher" }),
  ];
  replaceGraph(at("student-graph"), drawn.graphs[0]);
  replaceGraph(at("teacher-graph"), drawn.graphs[1]);
  at("graph-legend").replaceChildren(...graphLegend(...drawn.graphs));
}

/** Put a drawing where the last one was, with the focus if that one had it. */
function replaceGraph(box, graph) {
  const focused = box.contains(document.activeElement);
  box.replaceChildren(graph.drawing);
  if (focused) graph.drawing.focus({ preventScroll: true });
  graph.drawing.addEventListener("pointermove", (event) => !state.pinned && pointAtNode(nodeUnder(graph, event, drawn.hidden)));
  graph.drawing.addEventListener("click", (event) => pinNode(nodeUnder(graph, event, drawn.hidden)));
  graph.drawing.addEventListener("focus", () => !state.cursor && pointAtNode(firstNode()));
  graph.drawing.addEventListener("keydown", (event) => keyInGraph(graph, event));
}

const firstNode = () => drawn.graphs[0].marks.findIndex((_, i) => !drawn.hidden.has(i));

function pointAtNode(node) {
  if (node !== null && node >= 0) moveTo({ row: node, column: node });
}

function pinNode(node) {
  if (node === null) return;
  const again = state.pinned && state.cursor && state.cursor.row === node;
  state.pinned = !again;
  pointAtNode(node);
}

function keyInGraph(graph, event) {
  if (TOWARDS[event.key]) pointAtNode(nodeTowards(graph, state.cursor ? state.cursor.row : firstNode(), event.key, drawn.hidden));
  else if (event.key === "Enter" || event.key === " ") togglePin();
  else if (event.key === "Escape") letGo();
  else return;
  event.preventDefault();
}

/** Point at a cell, by the places of its row and column in the whole plan; null for none. */
function moveTo(cursor) {
  state.cursor = cursor;
  drawCursor();
}

function togglePin() {
  state.pinned = state.cursor !== null && !state.pinned;
  drawCursor();
}

function letGo() {
  state.pinned = false;
  moveTo(null);
}

/** Where the cursor is among what is shown, or null. */
function cursorCell() {
  if (!drawn.view || !state.cursor) return null;
  const row = drawn.view.rows.findIndex((node) => node.place === state.cursor.row);
  const column = drawn.view.columns.findIndex((node) => node.place === state.cursor.column);
  return row < 0 || column < 0 ? null : { row, column };
}

function drawCursor() {
  const { view } = drawn;
  const cell = cursorCell();
  if (view) paintCross(at("cross"), drawn.heat, cell, state.pinned);
  const row = cell && view.rows[cell.row];
  if (drawn.graphs) {
    const partners = cell ? strongest(view, row).map(([column, mass]) => [view.columns[column].place, shareOf(mass, view.rowMass[row.place]) ?? 0]) : [];
    highlight(drawn.graphs[0], cell ? row.place : null, []);
    highlight(drawn.graphs[1], cell ? row.place : null, partners);
  }
  at("details").classList.toggle("empty", !cell);
  fillDetails(parts, cell && {
    term: state.term, view, row, column: view.columns[cell.column], at: state.step, pinned: state.pinned, graphs: drawn.pairs,
  });
}

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -Infinity], End: [0, Infinity], PageUp: [-10, 0], PageDown: [10, 0] };

function keyInPlan(event) {
  if (event.key === "Enter" || event.key === " ") togglePin();
  else if (event.key === "Escape") letGo();
  else if (STEPS[event.key]) {
    const [down, right] = STEPS[event.key];
    const from = cursorCell();
    const row = from ? within(from.row + down, drawn.view.rows.length) : 0;
    const column = from ? within(from.column + right, drawn.view.columns.length) : 0;
    moveTo({ row: drawn.view.rows[row].place, column: drawn.view.columns[column].place });
  } else return;
  event.preventDefault();
}

const within = (value, count) => Math.min(Math.max(value, 0), count - 1);

function pointInPlan(event, pin) {
  const cell = drawn.view && cellUnder(at("cells"), drawn.heat, event);
  if (!cell) return;
  const cursor = { row: drawn.view.rows[cell.row].place, column: drawn.view.columns[cell.column].place };
  const again = state.cursor && state.cursor.row === cursor.row && state.cursor.column === cursor.column;
  if (pin) state.pinned = !(state.pinned && again);
  moveTo(cursor);
}

function drawStep() {
  const { step, epoch } = page.steps[state.step];
  const words = `step ${step}, epoch ${epoch}`;
  at("step").value = state.step;
  at("step").setAttribute("aria-valuetext", words);
  at("where").textContent = words;
  drawPlan();
  drawGraphs();
  drawCursor();
  fillNumbers(at("numbers"), state.term, state.step);
  fillLayers(at("cka"), state.step);
  fillMissed(at("missed"), at("missed-note"), state.step);
}

function goTo(step) {
  state.step = step;
  drawStep();
}

function stop() {
  clearInterval(playing);
  playing = null;
  at("play-icon").setAttribute("d", "M4 2 L14 8 L4 14 Z");
  at("play").setAttribute("aria-label", calm.matches ? "Next step" : "Play the steps");
}

/** Play or pause; a reader who wants no motion gets one step per press. */
function play() {
  const next = () => goTo((state.step + 1) % page.steps.length);
  if (playing !== null) return stop();
  if (!calm.matches) {
    playing = setInterval(next, PAUSE);
    at("play-icon").setAttribute("d", "M3 2 H7 V14 H3 Z M9 2 H13 V14 H9 Z");
    at("play").setAttribute("aria-label", "Pause");
  }
  return next();
}

/** The classes of the chosen term, as buttons. */
function drawChips() {
  const { term } = state;
  const used = new Set(term.plan ? nodesOf(term.rows).concat(nodesOf(term.columns)).filter((node) => !node.remembered).map((node) => node.class) : []);
  state.chosen = new Set([...state.chosen].filter((id) => used.has(id)));
  const shown = page.classes.filter(({ id }) => used.has(id));
  at("chips").hidden = shown.length < 2;
  at("chips").replaceChildren(
    chip("all", null, state.chosen.size === 0, () => state.chosen.clear()),
    ...shown.map(({ id, name }) => chip(name, mark(id), state.chosen.has(id), () => (state.chosen.has(id) ? state.chosen.delete(id) : state.chosen.add(id)))),
  );
}

function chip(name, sign, pressed, choose) {
  const button = element("button", { type: "button", class: "chip", "aria-pressed": String(pressed), title: name }, sign, element("span", {}, name));
  button.addEventListener("click", () => {
    const place = [...at("chips").children].indexOf(button);
    choose();
    drawChips();
    at("chips").children[place].focus();
    drawStep();
  });
  return button;
}

function chooseTerm() {
  state.term = page.terms[Number(at("term").value)];
  state.cursor = null;
  state.pinned = false;
  drawChips();
  drawStep();
}

/** Which run this is, in a sentence. */
function factsWords() {
  const { steps, saved, samples } = page;
  const named = new Set(samples.classes.filter((id) => id !== UNLABELLED)).size;
  const kinds = named ? `, ${named} ${named === 1 ? "class" : "classes"}` : ", no labels";
  const moments = steps.length === 1 ? `one saved step, so the slider is fixed` : `${steps.length} saved steps, from ${steps[0].step} to ${steps.at(-1).step}`;
  const fewer = page.dropped ? ` Of ${saved} saved steps ${page.dropped} are left out, evenly, to keep the page small.` : "";
  return `${samples.count} samples${kinds}; ${moments}.${fewer}`;
}

function start() {
  const { sprite } = page.samples;
  if (sprite) document.documentElement.style.setProperty("--sprite", `url("${sprite.uri}")`);
  at("facts").textContent = factsWords();
  at("term").append(...page.terms.map(({ name }, i) => element("option", { value: i }, name)));
  at("term").value = page.first;
  at("step").max = page.steps.length - 1;
  at("step").disabled = at("play").disabled = page.steps.length === 1;
  at("details-body").replaceChildren(parts.summary, parts.partners);
  at("step").addEventListener("input", () => (stop(), goTo(Number(at("step").value))));
  at("play").addEventListener("click", play);
  at("term").addEventListener("change", chooseTerm);
  at("heat").addEventListener("pointermove", (event) => !state.pinned && pointInPlan(event, false));
  at("heat").addEventListener("click", (event) => pointInPlan(event, true));
  at("heat").addEventListener("keydown", keyInPlan);
  darkness.addEventListener("change", drawStep);
  calm.addEventListener("change", stop);
  new ResizeObserver(() => (drawPlan(), drawCursor())).observe(at("heat"));
  stop();
  drawChips();
  drawStep();
}

start();
