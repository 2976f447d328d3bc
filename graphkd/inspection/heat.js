// The plan as a heat map: every cell a whole number of device pixels, classes outlined and named at the sides.

const STRIP = 6;
const NAMES_ABOVE = 24;
const LARGEST_CELL = 48;

/** Runs of one class among nodes: [class, first place, place after the last]. */
function spans(nodes) {
  const found = [];
  nodes.forEach((node, i) => {
    const key = node.remembered ? "memory" : node.class;
    if (found.length && found.at(-1)[0] === key) found.at(-1)[2] = i + 1;
    else found.push([key, i, i + 1]);
  });
  return found;
}

const spanName = (key) => (key === "memory" ? "memory" : key === UNLABELLED ? "no label" : className(key));

/** As much of a text as has room, or nothing. */
function cut(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let kept = text;
  while (kept.length > 2 && context.measureText(`${kept}…`).width > room) kept = kept.slice(0, -1);
  return kept.length > 2 ? `${kept}…` : "";
}

/** Where cells stand on a canvas as wide as there is room, in device pixels. */
function measure(context, width, view) {
  const ratio = window.devicePixelRatio || 1;
  const [n, m] = [view.rows.length, view.columns.length];
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  const known = view.rows.concat(view.columns).some((node) => node.class !== UNLABELLED || node.remembered);
  const names = known ? spans(view.rows).map(([key]) => context.measureText(spanName(key)).width) : [];
  const room = Math.floor(width * ratio);
  const left = known ? Math.ceil(Math.min(Math.max(...names, 0) + 8 * ratio, room * 0.2) + STRIP * ratio) : 2;
  const top = known ? Math.ceil((NAMES_ABOVE + STRIP) * ratio) : 2;
  const largest = LARGEST_CELL * ratio;
  const across = Math.max(1, Math.floor(Math.min((room - left - 2) / m, largest)));
  const tall = Math.min(Math.max(room * (n / m), room * 0.4), room - left);
  const down = n === m ? across : Math.max(1, Math.floor(Math.min(tall / n, largest)));
  return { ratio, left, top, across, down, n, m, known, width: left + across * m + 2, height: top + down * n + 2 };
}

function sized(canvas, at) {
  canvas.width = at.width;
  canvas.height = at.height;
  canvas.style.width = `${at.width / at.ratio}px`;
  canvas.style.height = `${at.height / at.ratio}px`;
}

function paintCells(context, at, view) {
  const image = new ImageData(at.m, at.n);
  const background = shadeColour(0);
  view.rows.forEach((row, i) => {
    view.columns.forEach((column, j) => {
      const shade = view.shades[row.place * view.width + column.place];
      image.data.set([...(shade > 0 ? shadeColour(shade) : background), 255], 4 * (i * at.m + j));
    });
  });
  const small = document.createElement("canvas");
  [small.width, small.height] = [at.m, at.n];
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, at.left, at.top, at.across * at.m, at.down * at.n);
}

/** Outlines of the whole, of the classes on themselves, and of the true pairs. */
function paintOutlines(context, at, view) {
  context.lineWidth = Math.max(1, Math.round(at.ratio));
  context.strokeStyle = ink("line");
  context.strokeRect(at.left - 0.5, at.top - 0.5, at.across * at.m + 1, at.down * at.n + 1);
  context.strokeStyle = ink("soft");
  const columns = new Map(spans(view.columns).map(([key, ...ends]) => [key, ends]));
  for (const [key, start, stop] of spans(view.rows)) {
    const ends = columns.get(key);
    if (key === UNLABELLED || !ends || view.rows[start].kind === "class") continue;
    context.strokeRect(
      at.left + ends[0] * at.across + 0.5, at.top + start * at.down + 0.5,
      (ends[1] - ends[0]) * at.across - 1, (stop - start) * at.down - 1,
    );
  }
  if (view.paired) paintPairs(context, at, view);
}

/** Corners beside each true pair, so that its own colour stays to be seen. */
function paintPairs(context, at, view) {
  const column = new Map(view.columns.map((node, j) => [node.index, j]));
  context.strokeStyle = ink("wrong");
  context.beginPath();
  view.rows.forEach((node, i) => {
    const j = column.get(node.index);
    if (j === undefined) return;
    const [x, y] = [at.left + j * at.across, at.top + i * at.down];
    const length = Math.max(1, Math.round(Math.min(at.across, at.down) * 0.3));
    context.moveTo(x + 0.5, y + length);
    context.lineTo(x + 0.5, y + 0.5);
    context.lineTo(x + length, y + 0.5);
  });
  context.stroke();
}

function paintNames(context, at, view) {
  context.fillStyle = ink("ink");
  context.font = `${12 * at.ratio}px system-ui, sans-serif`;
  const strip = STRIP * at.ratio;
  let free = -Infinity;
  for (const [key, start, stop] of spans(view.rows)) {
    paintStrip(context, key, at.left - strip, at.top + start * at.down, strip - 2 * at.ratio, (stop - start) * at.down);
    const middle = at.top + ((start + stop) / 2) * at.down;
    const text = cut(context, spanName(key), at.left - strip - 4 * at.ratio);
    if (!text || middle - 6 * at.ratio < free) continue;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillText(text, at.left - strip - 4 * at.ratio, middle);
    free = middle + 7 * at.ratio;
  }
  for (const [key, start, stop] of spans(view.columns)) {
    const [x, length] = [at.left + start * at.across, (stop - start) * at.across];
    paintStrip(context, key, x, at.top - strip, length, strip - 2 * at.ratio);
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    context.fillText(cut(context, spanName(key), length - 2 * at.ratio), x + length / 2, at.top - strip - 4 * at.ratio);
  }
}

function paintStrip(context, key, x, y, width, height) {
  const before = context.fillStyle;
  context.fillStyle = key === "memory" ? ink("line") : look(key).colour;
  context.fillRect(x, y, width, height);
  context.fillStyle = before;
}

/** Draw a view: rows and columns with their places in the whole plan, shades row by row, whether there are true pairs. */
function paintHeat(canvas, width, view) {
  const context = canvas.getContext("2d");
  const at = measure(context, width, view);
  sized(canvas, at);
  paintCells(context, at, view);
  paintOutlines(context, at, view);
  if (at.known) paintNames(context, at, view);
  return at;
}

/** Draw the row, the column and the cell that are pointed at; null for none. */
function paintCross(canvas, at, cell, pinned) {
  sized(canvas, at);
  if (!cell) return;
  const context = canvas.getContext("2d");
  const [x, y] = [at.left + cell.column * at.across, at.top + cell.row * at.down];
  const wide = Math.max(1, Math.round(at.ratio));
  context.strokeStyle = ink("focus");
  context.lineWidth = wide;
  context.globalAlpha = 0.55;
  context.strokeRect(at.left - 0.5, y - 0.5, at.across * at.m + 1, at.down + 1);
  context.strokeRect(x - 0.5, at.top - 0.5, at.across + 1, at.down * at.n + 1);
  context.globalAlpha = 1;
  context.lineWidth = (pinned ? 3 : 2) * wide;
  context.strokeRect(x - 1.5 * wide, y - 1.5 * wide, at.across + 3 * wide, at.down + 3 * wide);
}

/** Which cell lies under a point of the page, or null. */
function cellUnder(canvas, at, event) {
  const box = canvas.getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) * at.ratio - at.left) / at.across);
  const row = Math.floor(((event.clientY - box.top) * at.ratio - at.top) / at.down);
  return row >= 0 && row < at.n && column >= 0 && column < at.m ? { row, column } : null;
}
