// A long list of which only the visible rows are in the document. All rows have one height.

const SPARE = 8; // rows beyond each edge: for the keyboard's next step, and while a scroll is painted
const USUAL_HEIGHT_PX = 30;

export class Window {
  #list = [];
  #top = 0;
  #view = 0;
  #height = 0;
  #wanted = false;

  /**
   * `scroller` scrolls, `rows` (see rows.js) are the visible ones; `above` and `below` are the
   * elements that take the room of all others.
   */
  constructor({ scroller, rows, above, below }) {
    this.scroller = scroller;
    this.rows = rows;
    this.above = above;
    this.below = below;
    scroller.addEventListener("scroll", () => this.#later(), { passive: true });
    new ResizeObserver(() => this.#later()).observe(scroller);
  }

  /** Show what is visible of `list`. */
  show(list) {
    this.#list = list;
    this.#paint();
  }

  /** Scroll to the row at `index`. */
  reveal(index) {
    this.scroller.scrollTop = Math.max(0, (index - 2) * this.#rowHeight());
    this.#measure();
    this.#paint();
  }

  // Reading sizes makes the browser lay out the page: once a frame at most, never for a patch.
  #later() {
    if (this.#wanted) return;
    this.#wanted = true;
    requestAnimationFrame(() => {
      this.#wanted = false;
      this.#measure();
      this.#paint();
    });
  }

  #measure() {
    this.#top = this.scroller.scrollTop;
    this.#view = this.scroller.clientHeight;
    this.#height = this.rows.container.firstElementChild?.getBoundingClientRect().height || this.#height;
  }

  #rowHeight() {
    return this.#height || USUAL_HEIGHT_PX;
  }

  #paint() {
    const height = this.#rowHeight();
    const total = this.#list.length;
    const view = Math.ceil((this.#view || innerHeight) / height);
    const top = Math.min(Math.floor(this.#top / height), Math.max(0, total - view));
    const first = Math.max(0, top - SPARE);
    const last = Math.min(total, top + view + SPARE);
    stretch(this.above, first * height);
    stretch(this.below, (total - last) * height);
    this.#keepFocus(() => this.rows.show(this.#list.slice(first, last)));
    this.#number(first);
  }

  // An element that is moved within the document loses the focus.
  #keepFocus(change) {
    const focused = this.rows.container.contains(document.activeElement) ? document.activeElement : null;
    change();
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
  }

  #number(first) {
    let index = first + 2; // counted from 1, and the head is a row too
    for (const row of this.rows.container.children) {
      if (row.ariaRowIndex !== String(index)) row.ariaRowIndex = index;
      index += 1;
    }
  }
}

function stretch(element, height) {
  const value = `${height}px`;
  if (element.style.height !== value) element.style.height = value;
}
