// Line charts: uPlot, fetched when first needed, in the page's own colours.

const HEIGHT_PX = 74;
const FONT = "11px system-ui, sans-serif";
const time = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });

let library = null;

/** Gives undefined when the hub is away just then; the next call tries again. */
function load({ library: script, style }) {
  library ??= new Promise((resolve) => {
    const onload = () => resolve(globalThis.uPlot);
    const onerror = () => resolve((library = null));
    document.head.append(
      Object.assign(document.createElement("link"), { rel: "stylesheet", href: style }),
      Object.assign(document.createElement("script"), { src: script, onload, onerror }),
    );
  });
  return library;
}

export class Chart {
  #plot = null;
  #data = null;

  /**
   * `place`: the element to draw into. `series`: `{colour, fill, dash, steps}` each, `colour` naming a
   * custom property of the stylesheet. `write(value)` says a value at the axis. `addresses`: of uPlot's
   * `{library, style}`. `onPoint(index)` when the cursor stands on another point, the same one in all
   * charts, with null when it has left.
   */
  constructor(place, { series, write, addresses, onPoint }) {
    Object.assign(this, { place, series, write, addresses, onPoint });
    new ResizeObserver(() => this.#fit()).observe(place);
  }

  /** Draw `[[seconds since the epoch, …], [value or null, …], …]`. */
  async show(data) {
    this.#data = data;
    const UPlot = await load(this.addresses);
    if (this.#plot) this.#plot.setData(this.#data);
    else if (UPlot) this.#plot = new UPlot(this.#options(UPlot), this.#data, this.place);
  }

  /** The colours of the page have changed. */
  recolour() {
    this.#plot?.redraw(false, true);
  }

  #fit() {
    const { width } = this.#size();
    if (this.#plot && width !== this.#plot.width) this.#plot.setSize(this.#size());
  }

  #size() {
    return { width: this.place.clientWidth || 300, height: this.place.clientHeight || HEIGHT_PX };
  }

  #options(UPlot) {
    const axis = { stroke: colour("--muted"), font: FONT, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    return {
      ...this.#size(),
      padding: [6, 16, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 }, sync: { key: "charts" } },
      scales: { y: { range: (_, __, highest) => [0, roundedUp(highest)] } },
      axes: [
        { ...axis, size: 18, gap: 2, space: 60, values: (_, splits) => splits.map(clock), grid: { show: false } },
        { ...axis, size: 46, gap: 4, splits: (_, __, lowest, highest) => [lowest, highest], values: (_, splits) => splits.map(this.write) },
      ],
      series: [{}, ...this.series.map((each) => line(each, UPlot))],
      hooks: { setCursor: [({ cursor }) => this.onPoint(cursor.idx ?? null)] },
    };
  }
}

function line({ colour: name, fill, dash, steps }, UPlot) {
  return {
    stroke: colour(name),
    fill: fill && colour(name, "30"),
    width: 1.5,
    dash,
    points: { show: false },
    paths: steps && UPlot.paths.stepped({ align: 1 }),
  };
}

// The end of the axis: 1, 2 or 5 with zeros behind.
function roundedUp(value) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 5, 10].map((factor) => factor * ten).find((end) => end >= value) ?? 1;
}

// Looked up whenever it is drawn, for the theme may have changed.
function colour(name, opacity = "") {
  return () => getComputedStyle(document.documentElement).getPropertyValue(name).trim() + opacity;
}

/** `HH:MM` of a moment, in the viewer's time zone. */
export function clock(seconds) {
  return time.format(seconds * 1000);
}
