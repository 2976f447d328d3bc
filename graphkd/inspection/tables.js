// Tables and lists that follow the slider: numbers, layers, lost neighbourhoods.

const LINE = { width: 130, height: 30, edge: 4 };

/** A small line over all steps, with a dot at the chosen one. */
function sparkline(series, at) {
  const known = series.values.filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const { width, height, edge } = LINE;
  const across = (i) => edge + ((width - 2 * edge) * i) / Math.max(1, series.values.length - 1);
  const up = (value) => (high > low ? height - edge - ((height - 2 * edge) * (value - low)) / (high - low) : height / 2);
  let pen = "M";
  const path = series.values.map((value, i) => {
    if (value === null) {
      pen = "M";
      return "";
    }
    const part = `${pen}${across(i).toFixed(1)} ${up(value).toFixed(1)}`;
    pen = "L";
    return part;
  });
  const words = known.length
    ? `from ${told(series, low)} to ${told(series, high)} over the steps`
    : "not known at any step";
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": words });
  drawing.append(svg("title", {}, words), svg("path", { class: "line", d: path.join("") }));
  const value = series.values[at];
  if (value !== null) drawing.append(svg("circle", { class: "now", cx: across(at), cy: up(value), r: 4 }));
  return drawing;
}

/** The numbers of a term at a step. */
function fillNumbers(table, term, at) {
  const head = ["", "here", "over the steps", "first", "last"].map((name) => element("th", { scope: "col" }, name));
  const rows = term.measures.map((series) =>
    element(
      "tr", {},
      element("th", { scope: "row" }, series.name, element("span", { class: "soft" }, series.what)),
      element("td", { class: "number here" }, element("b", {}, told(series, series.values[at]))),
      element("td", {}, sparkline(series, at)),
      element("td", { class: "number" }, told(series, series.values[0])),
      element("td", { class: "number" }, told(series, series.values.at(-1))),
    ));
  table.replaceChildren(
    element("caption", {}, `${term.name} at step ${page.steps[at].step}`),
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...rows),
  );
}

/** Black or white, whichever is read better on a colour [r, g, b]. */
function readableOn(colour) {
  const [r, g, b] = colour.map((value) => (value / 255 <= 0.04045 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

/** CKA of every two layers at a step, as a heat map with its numbers in the cells. */
function fillLayers(table, at) {
  const { rows, columns, steps } = page.cka;
  const head = columns.map((name) => element("th", { scope: "col" }, name));
  const body = rows.map((name, i) =>
    element("tr", {}, element("th", { scope: "row" }, name), ...steps[at][i].map((value) => {
      const cell = element("td", {}, value === null ? "–" : value.toFixed(2));
      const colour = shadeColour(0.75 * Math.max(0, value ?? 0));
      cell.style.backgroundColor = `rgb(${colour.join(" ")})`;
      cell.style.color = readableOn(colour);
      return cell;
    })));
  table.replaceChildren(
    element("caption", {}, `Rows: the student's layers. Columns: the teacher's. At step ${page.steps[at].step}.`),
    element("thead", {}, element("tr", {}, element("td"), ...head)),
    element("tbody", {}, ...body),
  );
}

/** A row of pictures; those that the other row lacks are faint. */
function tiles(words, samples, others) {
  const shown = samples.map((sample) => {
    const made = tile(sample, 30);
    if (!others.has(sample)) {
      made.classList.add("lost");
      made.setAttribute("aria-label", `${made.getAttribute("aria-label")}, not shared`);
    }
    return made;
  });
  return element("div", { class: "row" }, element("b", {}, words), ...shown);
}

/** The samples whose neighbourhood the student misses most at a step. */
function fillMissed(list, note, at) {
  const { feature, k, steps } = page.missed;
  note.textContent = k && steps[at].length
    ? `By the ${k} nearest samples in the feature ${feature}, by cosine. Faint neighbours are not shared. Frames have the colour of the class.`
    : "Student and teacher have no finite features of one name with a row per sample, so there are no neighbours to compare.";
  list.replaceChildren(...steps[at].map(({ sample, kept, teacher, student }) => {
    const id = classOfSample(sample);
    return element(
      "li", {},
      element(
        "div", { class: "who" }, tile(sample, 48), element("div", {}, `sample ${sample}`),
        id === UNLABELLED ? null : classLabel(id), element("div", {}, element("b", {}, `${kept} of ${k}`), " kept"),
      ),
      element(
        "div", {},
        tiles("the teacher's neighbours, nearest first", teacher, new Set(student)),
        tiles("the student's", student, new Set(teacher)),
      ),
    );
  }));
}
