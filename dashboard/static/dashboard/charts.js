// A chart: for each step of time a column as high as its value, in the SVG of _charts.html. There a step is
// one unit wide and the chart 100 high; style sheets stretch it and give it its colours.

import { setText } from "./dom.js";
import { duration, figure } from "./format.js";

const KINDS = {
  count: { write: (value) => (value < 10 && value % 1 ? value.toFixed(1) : figure(Math.round(value))), units: [1] },
  duration: { write: (ms) => duration(Math.round(ms)), units: [3_600_000, 60_000, 1_000, 1] },
};

export class Chart {
  #columns = null;

  /** `element`: a figure. `onPoint(step)`: the mouse is at this step, counted from 0; null when it has left. */
  constructor(element, onPoint) {
    const svg = element.querySelector("svg");
    const paths = [...svg.querySelectorAll("path")];
    const names = [...new Set(paths.map((path) => path.dataset.series))];
    Object.assign(this, { element, svg, paths, names, label: svg.ariaLabel, ...KINDS[element.dataset.chartOf] });
    svg.addEventListener("mouseleave", () => onPoint(null));
    svg.addEventListener("mousemove", ({ clientX }) => {
      const { left, width } = svg.getBoundingClientRect();
      if (this.#columns) onPoint(Math.floor(((clientX - left) / width) * this.#columns.at.length));
    });
  }

  /** Draw `{at: [seconds since the epoch], name: [value or null], …}`, of which the last step is not over yet. */
  show(columns) {
    const { element, svg, paths, names } = this;
    this.#columns = columns;
    const drawn = paths.map((path) => valuesOf(path, columns));
    const highest = Math.max(...drawn.flat());
    const end = roundedUp(highest, this.units);
    svg.setAttribute("viewBox", `0 0 ${columns.at.length} 100`);
    paths.forEach((path, index) => path.setAttribute("d", outline(drawn[index], end)));
    setText(element.querySelector(".end"), highest ? this.write(end).replace(/\.0(?= s$)| 0 (s|min)$/, "") : "");
    const figures = names.map((name) => `${name} ${this.#say(this.#latest(name))}, at most ${this.#say(Math.max(...columns[name]))}`);
    svg.ariaLabel = `${this.label}: ${figures.join("; ")}`;
    element.dataset.points = JSON.stringify(columns, ["at", ...names]);
  }

  /** In the caption what was at this step, or the latest where it is null. */
  point(step) {
    const cursor = this.svg.querySelector("rect");
    cursor.toggleAttribute("hidden", step === null);
    cursor.setAttribute("x", step ?? 0);
    for (const name of this.names) {
      const value = step === null ? this.#latest(name) : this.#columns[name][step];
      setText(this.element.querySelector(`[data-latest="${name}"]`), this.#say(value));
    }
  }

  // The step under way is told only of what has a value at any moment.
  #latest(name) {
    const isPartial = this.paths.some(({ dataset }) => dataset.series === name && dataset.steps);
    return this.#columns[name].at(isPartial ? -2 : -1);
  }

  #say(value) {
    return Number.isFinite(value) ? this.write(value) : "–";
  }
}

// A path with `data-steps` shows the whole steps or only the running one, which looks different. A percentile
// of the few tasks of the running one would be a fall or a spike, and has no path.
function valuesOf({ dataset: { series, steps } }, columns) {
  const last = columns.at.length - 1;
  return columns[series].map((value, step) => (!steps || (steps === "running") === (step === last) ? value : null));
}

// Up to each value and across its step; where there is none, the ground is left out too.
function outline(values, end) {
  const column = (value, step) => (value === null ? `V100M${step + 1} 100` : `V${100 - (100 * value) / end}H${step + 1}`);
  return `M0 100${values.map(column).join("")}V100`;
}

// The end of an axis: a round and whole number of the largest unit that fits.
function roundedUp(value, units) {
  const unit = units.find((each) => each <= value) ?? 1;
  const ten = 10 ** Math.floor(Math.log10(Math.max(1, value / unit)));
  const ends = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((factor) => factor * ten);
  return unit * ends.find((end) => end * unit >= value && Number.isInteger(end));
}
