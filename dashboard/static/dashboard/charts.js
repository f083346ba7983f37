// Line charts: uPlot, fetched when first needed, in the page's own colours.

import { setText } from "./dom.js";
import { absolute, duration, figure } from "./format.js";

const FONT = "11px system-ui, sans-serif";
const WRITERS = {
  number: (value) => (value < 10 && value % 1 ? value.toFixed(1) : figure(Math.round(value))),
  duration: (ms) => duration(Math.round(ms)).replace(/ min .*/, " min").replace(".0 s", " s"),
};

let library = null;

// Null when the hub does not answer just then; the next call tries again.
function load(src) {
  library ??= new Promise((resolve) => {
    const onload = () => resolve(globalThis.uPlot);
    const onerror = () => resolve((library = null));
    document.head.append(Object.assign(document.createElement("script"), { src, onload, onerror }));
  });
  return library;
}

export class Chart {
  #plot = null;
  #columns = null;

  /**
   * `element`: a figure of _charts.html, whose keys say how their lines are drawn. `source`: of uPlot.
   * `onPoint(seconds)`: the cursor stands there, in all charts alike; undefined when it has left.
   */
  constructor(element, { source, onPoint }) {
    const place = element.querySelector(".plot");
    const keys = [...element.querySelectorAll("[data-series]")];
    const names = keys.map((key) => key.dataset.series);
    const write = WRITERS[element.dataset.write];
    Object.assign(this, { element, place, keys, names, write, source, onPoint, label: place.ariaLabel });
    new ResizeObserver(() => this.#fit()).observe(place);
  }

  /** Draw `{at: [seconds since the epoch], name: [value or null], …}`. */
  async show(columns) {
    const { element, names, place } = this;
    this.#columns = columns;
    const UPlot = await load(this.source);
    if (this.#plot) this.#plot.setData(this.#data());
    else if (UPlot) this.#plot = new UPlot(this.#options(UPlot), this.#data(), place);
    element.dataset.points = JSON.stringify(columns, ["at", ...names]);
    const figures = names.map((name) => `${name} ${this.#say(this.#current(name))}, at most ${this.#say(Math.max(...columns[name]))}`);
    place.ariaLabel = `${this.label}: ${figures.join("; ")}`;
    if (!place.matches(":hover")) this.#tell(null);
  }

  recolour() {
    this.#plot?.redraw(false, true);
  }

  // In the caption: at the cursor, else now.
  #tell(index) {
    for (const name of this.names) {
      const value = index === null ? this.#current(name) : this.#columns[name][index];
      setText(this.element.querySelector(`[data-latest="${name}"]`), this.#say(value));
    }
    this.onPoint(this.#columns.at[index]);
  }

  // Of a rate the last whole step: the one under way would always look like a fall.
  #current(name) {
    const column = this.#columns[name];
    return column.at(name === "depth" ? -1 : -2) ?? column.at(-1);
  }

  #say(value) {
    return Number.isFinite(value) ? this.write(value) : "–";
  }

  #data() {
    return [this.#columns.at, ...this.names.map((name) => this.#columns[name])];
  }

  #fit() {
    const size = this.#size();
    if (this.#plot && size.width !== this.#plot.width) this.#plot.setSize(size);
  }

  #size() {
    return { width: this.place.clientWidth || 300, height: this.place.clientHeight || 74 };
  }

  #options(UPlot) {
    const axis = { stroke: colourOf(this.place), font: FONT, grid: { stroke: colourOf(this.place, 18), width: 1 }, ticks: { show: false } };
    return {
      ...this.#size(),
      padding: [6, 16, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 }, sync: { key: "charts" } },
      scales: { y: { range: (_, __, highest) => [0, roundedUp(highest)] } },
      axes: [
        { ...axis, size: 18, gap: 2, space: 60, values: (_, splits) => splits.map(timeOf), grid: { show: false } },
        { ...axis, size: 46, gap: 4, splits: (_, __, lowest, highest) => [lowest, highest], values: (_, splits) => splits.map(this.write) },
      ],
      series: [{}, ...this.keys.map((key) => line(key, UPlot))],
      hooks: { setCursor: [({ cursor }) => this.#tell(cursor.idx ?? null)] },
    };
  }
}

function line(key, UPlot) {
  const { fill, dash, steps } = key.dataset;
  return {
    stroke: colourOf(key),
    fill: fill && colourOf(key, fill),
    width: 1.5,
    dash: dash?.split(" ").map(Number),
    points: { show: false },
    paths: steps && UPlot.paths.stepped({ align: 1 }),
  };
}

/** `HH:MM`, in the viewer's time zone. */
export const timeOf = (seconds) => absolute(seconds * 1000).slice(11, 16);

// The end of the axis: 1, 2 or 5 with zeros behind.
function roundedUp(value) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 5, 10].map((factor) => factor * ten).find((end) => end >= value);
}

// Looked up whenever it is drawn, for the theme may have changed.
function colourOf(element, percent = 100) {
  return () => `color-mix(in srgb, ${getComputedStyle(element).color} ${percent}%, transparent)`;
}
