// The panel beside the drawings: what is known of the cell or node that is pointed at.

const PARTNERS = 5;

/** The columns that get most of a row's mass: [column, mass], strongest first. */
function strongest(view, row) {
  return view.columns
    .map((node, column) => [column, view.masses[row.place * view.width + node.place]])
    .filter(([, mass]) => mass > 0)
    .sort((one, other) => other[1] - one[1])
    .slice(0, PARTNERS);
}

/** Whether a pairing is right, as [class of the mark, words]. */
function verdictOf(term, row, column) {
  if (isPair(term, row, column)) return ["right", term.rows.kind === "class" ? "the same class" : "the true pair"];
  if (row.kind === "class" && column.kind === "class") return ["wrong", "another class"];
  if (row.class === UNLABELLED || column.class === UNLABELLED) {
    return ["", row.kind === "sample" && column.kind === "sample" ? "another sample, no labels to compare" : "there is no true pair"];
  }
  return row.class === column.class ? ["right", "another sample of the same class"] : ["wrong", "another class"];
}

const shareOf = (mass, whole) => (whole > 0 ? mass / whole : null);

/** One end of a pair: its picture, what it is called, its class. */
function end(node) {
  const label = node.class === UNLABELLED || node.kind === "class" ? null : classLabel(node.class);
  return element("div", {}, nodeTile(node, 48), element("div", {}, nodeName(node)), label);
}

function fact(name, value) {
  return [element("dt", {}, name), element("dd", {}, value)];
}

/** What one cell says: both ends, whether they belong together, the mass between them. */
function cellSummary(term, view, row, column, at) {
  const place = row.place * view.width + column.place;
  const mass = view.masses[place];
  const cost = costAt(term, at, place);
  const [kind, words] = verdictOf(term, row, column);
  return [
    element("div", { class: "pair" }, end(row), element("span", { "aria-label": "with" }, "→"), end(column)),
    element("p", { class: `verdict ${kind}` }, words),
    element(
      "dl", {},
      ...fact("mass", numeral(mass)),
      ...fact(`share of the ${row.network}'s mass`, percent(shareOf(mass, view.rowMass[row.place]))),
      ...(cost === null ? [] : fact("cost, about", numeral(cost))),
    ),
  ];
}

/** The list of a row's strongest partners. */
function partnerList(term, view, row) {
  const whole = view.rowMass[row.place];
  const lines = strongest(view, row).map(([column, mass]) => {
    const node = view.columns[column];
    const length = element("i");
    length.style.width = `${100 * (shareOf(mass, whole) ?? 0)}%`;
    const about = node.kind === "class" || node.class === UNLABELLED ? "" : `, ${classWords(node.class)}`;
    const verdict = !isPair(term, row, node) ? "" : node.kind === "class" ? " (itself)" : " (true pair)";
    return element(
      "li", {},
      nodeTile(node, 26), element("span", { class: "who" }, nodeName(node) + about + verdict),
      element("span", { class: "share" }, `${numeral(mass)} · ${percent(shareOf(mass, whole))}`),
      element("span", { class: "length" }, length),
    );
  });
  return lines.length
    ? [element("h3", { class: "partners-heading" }, "Where its mass goes"), element("ol", { class: "partners" }, ...lines)]
    : [element("p", { class: "soft" }, "It has no mass here.")];
}

/** How the neighbours of one node compare. */
function neighbourSummary(graphs, i) {
  const [mine, theirs] = [graphs.student, graphs.teacher].map((pairs) => neighboursOf(pairs, graphs.n, i));
  const kept = [...theirs].filter((node) => mine.has(node)).length;
  return element(
    "p", { class: "small" },
    `In the graphs: ${theirs.size} neighbours in the teacher's, of which the student keeps ${kept} and has ${mine.size - kept} others.`,
  );
}

/** Fill the panel; without a cell it says what it is for. */
function fillDetails(parts, shown) {
  if (!shown) {
    parts.summary.replaceChildren(
      element("h3", {}, "Point at a cell or a node"),
      element("p", { class: "soft small" }, "Here you will see which two are matched, with how much mass, and who else gets some."),
    );
    parts.partners.replaceChildren();
    return;
  }
  const { term, view, row, column, at, pinned, graphs } = shown;
  parts.summary.replaceChildren(...cellSummary(term, view, row, column, at));
  parts.partners.replaceChildren(
    ...(graphs ? [neighbourSummary(graphs, row.place)] : []),
    ...partnerList(term, view, row),
    element("p", { class: "soft small" }, pinned ? "Pinned. Escape, or another click on it, lets go." : "Click to pin."),
  );
}
