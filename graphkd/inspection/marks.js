// Small things that the page is built of: elements, class marks, pictures.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; text is taken literally. */
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same of an SVG element. */
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Corners of a regular shape, as an SVG path around (0, 0). */
function corners(points) {
  return `M${points.map(([x, y]) => `${x} ${y}`).join("L")}Z`;
}

function around(count, start, radius = 1.1) {
  return Array.from({ length: count }, (_, i) => {
    const angle = start + (2 * Math.PI * i) / count;
    return [(radius * Math.cos(angle)).toFixed(3), (radius * Math.sin(angle)).toFixed(3)];
  });
}

const PLUS = [[-0.35, -1], [0.35, -1], [0.35, -0.35], [1, -0.35], [1, 0.35], [0.35, 0.35], [0.35, 1], [-0.35, 1], [-0.35, 0.35], [-1, 0.35], [-1, -0.35], [-0.35, -0.35]];
const UP = -Math.PI / 2;

/** The shapes of the classes, by the letters that the figures know them by, with a radius of about one. */
const SHAPES = {
  o: "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0Z",
  s: corners([[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]]),
  "^": corners(around(3, UP, 1.25)),
  v: corners(around(3, -UP, 1.25)),
  "<": corners(around(3, Math.PI, 1.25)),
  ">": corners(around(3, 0, 1.25)),
  D: corners(around(4, 0, 1.2)),
  p: corners(around(5, UP, 1.15)),
  P: corners(PLUS),
  X: corners(PLUS.map(([x, y]) => [((x - y) * 0.75).toFixed(3), ((x + y) * 0.75).toFixed(3)])),
};

const look = (id) => classes.get(id) ?? { colour: "#909090", marker: "o" };

/** The mark of a class, to stand in a line of text. */
function mark(id) {
  const { colour, marker } = look(id);
  const shape = svg("path", { d: SHAPES[marker], fill: colour, "vector-effect": "non-scaling-stroke" });
  return svg("svg", { class: "mark", viewBox: "-1.5 -1.5 3 3", width: 12, height: 12, "aria-hidden": "true" }, shape);
}

/** A class in words, with its mark. */
function classLabel(id) {
  return id === UNLABELLED
    ? element("span", {}, "no label")
    : element("span", {}, mark(id), ` ${classWords(id)}`);
}

/** A sample's picture, or its number where there is none, framed in the colour of its class. */
function tile(sample, width) {
  const id = classOfSample(sample);
  const words = `sample ${sample}${id === UNLABELLED ? "" : `, ${classWords(id)}`}`;
  const made = element("span", { class: "tile", role: "img", "aria-label": words, title: words });
  const { sprite } = page.samples;
  const place = places.get(sample);
  made.style.borderColor = look(id).colour;
  made.style.width = `${width}px`;
  made.style.height = `${width}px`;
  if (!sprite || place === undefined) {
    made.classList.add("blank");
    made.textContent = sample;
    return made;
  }
  const height = (width * sprite.height) / sprite.width;
  const [column, row] = [place % sprite.columns, Math.floor(place / sprite.columns)];
  made.style.height = `${height}px`;
  made.style.backgroundSize = `${width * sprite.columns}px ${height * sprite.rows}px`;
  made.style.backgroundPosition = `${-width * column}px ${-height * row}px`;
  made.classList.toggle("crisp", sprite.width < 24);
  return made;
}

/** A node as a picture: a sample's, or the mark of a class, or its number. */
function nodeTile(node, width) {
  if (node.sample !== null) return tile(node.sample, width);
  const made = element("span", { class: "tile blank", "aria-hidden": "true" });
  made.style.width = made.style.height = `${width}px`;
  if (node.kind === "class") made.style.borderColor = look(node.class).colour;
  made.append(node.kind === "class" ? mark(node.class) : String(node.number));
  return made;
}

/** Whether the reader wants a dark page. */
const darkness = window.matchMedia("(prefers-color-scheme: dark)");

const RAMPS = {
  light: ["#ffffff", "#d6e6f4", "#8fc1de", "#3b8bc2", "#0b559f", "#08306b"],
  dark: ["#181818", "#12304d", "#0f558c", "#2f86c5", "#8cc4ea", "#f2f9ff"],
};

const parsed = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

/** A colour [r, g, b] on the scale, from 0 for no mass to 1. */
function shadeColour(share) {
  const stops = RAMPS[darkness.matches ? "dark" : "light"];
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const [one, other] = [parsed(stops[low]), parsed(stops[low + 1])];
  return one.map((value, i) => Math.round(value + (other[i] - value) * (at - low)));
}

/** The scale as a CSS gradient. */
const rampGradient = () => `linear-gradient(to right, ${RAMPS[darkness.matches ? "dark" : "light"].join(", ")})`;

/** A colour of the style sheet. */
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
