// What the page was given, and how to read it.

const page = JSON.parse(document.getElementById("data").textContent);
const UNLABELLED = -100;
const classes = new Map(page.classes.map((each) => [each.id, each]));
const places = new Map(page.samples.index.map((sample, place) => [sample, place]));
const decoded = new Map();

/** The bytes of a text in base64, decoded once. */
function bytes(text) {
  if (!decoded.has(text)) decoded.set(text, Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
  return decoded.get(text);
}

/** Whole numbers of 16 bits, lowest byte first whatever the machine. */
function words(text) {
  const given = bytes(text);
  const view = new DataView(given.buffer, given.byteOffset, given.byteLength);
  return Array.from({ length: given.length / 2 }, (_, i) => view.getUint16(2 * i, true));
}

const partAt = (kept, at) => kept.parts[kept.at[at]];

/** Masses of a plan at a step, row by row, and their place on the colour scale in 0..1. */
function planAt(term, at) {
  const shades = words(partAt(term.plan, at)).map((word) => word / 65535);
  return { shades, masses: shades.map((shade) => term.plan.scale * shade * shade) };
}

/** The cost of a cell, or null. */
function costAt(term, at, cell) {
  if (!term.cost) return null;
  return term.cost.low + ((term.cost.high - term.cost.low) * bytes(partAt(term.cost, at))[cell]) / 255;
}

/** Pairs of nodes that an edge joins at a step, as i n + j with i < j. */
const pairsAt = (graph, at) => new Set(words(partAt(graph, at)));

/** The nodes of one side of a term in the order of the page. */
function nodesOf(side) {
  return side.index.map((index, i) => ({
    index,
    kind: side.kind,
    network: side.network,
    class: side.classes[i],
    remembered: index >= side.own,
    number: index >= side.own ? index - side.own : index,
    sample: side.kind === "sample" && index < side.own ? index : null,
  }));
}

/** The class of a sample. */
const classOfSample = (sample) => page.samples.classes[places.get(sample)] ?? UNLABELLED;

const className = (id) => classes.get(id)?.name ?? String(id);

/** A class in a sentence: a bare number does not say what it is. */
const classWords = (id) => (/^\d+$/.test(className(id)) ? `class ${className(id)}` : className(id));

/** What a node is called. */
function nodeName(node) {
  if (node.remembered) return `sample ${node.number} of the ${node.network}'s memory`;
  if (node.kind === "class") return `${node.network} class ${className(node.class)}`;
  return `${node.network} ${node.kind} ${node.number}`;
}

/** Whether two nodes are the same sample or class. */
const isPair = (term, row, column) => term.paired && row.index === column.index && !column.remembered;

const shortNumber = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, useGrouping: false });

/** A number in three digits, small and large ones by a power of ten. */
function numeral(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : shortNumber.format(value);
}

/** A number of a series as it is told. */
function told(series, value) {
  if (series.unit === "claim" && value !== null) return value === 1 ? "yes" : "no";
  return series.unit === "number" ? numeral(value) : percent(value);
}

/** A share in percent. */
function percent(share) {
  if (share === null || !Number.isFinite(share)) return "–";
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "under 0.1 %";
  return `${value >= 99.95 || value === 0 ? Math.round(value) : value.toFixed(1)} %`;
}
