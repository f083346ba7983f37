// A long list: only its visible rows, all of one height, are in the document.

const SPARE = 8; // rows beyond each edge, for the next step
const USUAL_HEIGHT_PX = 30;

export class Window {
  #list = null; // nothing yet: what the server painted stays
  #top = 0;
  #view = innerHeight;
  #height = USUAL_HEIGHT_PX;
  #frame = 0;

  /** `above` and `below` take the room of what is not in `rows`. */
  constructor(scroller, rows, { above, below }) {
    Object.assign(this, { scroller, rows, above, below });
    scroller.addEventListener("scroll", () => this.#later(), { passive: true });
    new ResizeObserver(() => this.#later()).observe(scroller);
  }

  /** An array, or something with a `length` of which only a part is here: `range(first, last)` gives it. */
  show(list) {
    this.#list = list;
    this.#paint();
  }

  rewind() {
    this.scroller.scrollTop = 0;
    this.#look();
  }

  // Reading sizes costs a layout: once a frame at most, never for a patch.
  #later() {
    this.#frame ||= requestAnimationFrame(() => this.#look());
  }

  #look() {
    this.#frame = 0;
    this.#top = this.scroller.scrollTop;
    this.#view = this.scroller.clientHeight || innerHeight;
    this.#height = this.rows.container.firstElementChild?.getBoundingClientRect().height || this.#height;
    this.#paint();
  }

  #paint() {
    if (!this.#list) return;
    const total = this.#list.length;
    const view = Math.ceil(this.#view / this.#height);
    const top = Math.min(Math.floor(this.#top / this.#height), Math.max(0, total - view));
    const first = Math.max(0, top - SPARE);
    const last = Math.min(total, top + view + SPARE);
    const { start, rows } = this.#list.range?.(first, last) ?? { start: first, rows: this.#list.slice(first, last) };
    this.above.style.height = `${start * this.#height}px`;
    this.below.style.height = `${(total - start - rows.length) * this.#height}px`;
    this.#keepFocus(() => this.rows.show(rows));
    this.#number(start + 2); // counted from 1, and the head is a row too
  }

  // An element that is moved within the document loses the focus.
  #keepFocus(change) {
    const focused = this.rows.container.contains(document.activeElement) ? document.activeElement : null;
    change();
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  #number(first) {
    [...this.rows.container.children].forEach((row, index) => {
      if (row.ariaRowIndex !== String(first + index)) row.ariaRowIndex = first + index;
    });
  }
}
