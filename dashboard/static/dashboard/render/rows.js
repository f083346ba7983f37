// Rows that follow a list: upserted by a stable id, in the list's order, copied from a <template>.

import { copyOf, fill } from "./fill.js";

export class Rows {
  #elements = new Map(); // id → element
  #painted = new Map(); // id → the row it shows

  /**
   * `container`: where the rows live; what the server painted there is taken over by its `data-KEY`.
   * `idOf(row)` is a stable id; `view(row)` makes of a row the values that its template names (fill.js).
   */
  constructor(container, template, { key, idOf, view = (row) => row, fill: write = (element, row) => fill(element, view(row)) }) {
    this.container = container;
    this.template = template;
    this.key = key;
    this.idOf = idOf;
    this.write = write;
    for (const element of container.children) this.#elements.set(element.dataset[key], element);
  }

  /** The element that shows the row with this id, if there is one. */
  get(id) {
    return this.#elements.get(id);
  }

  /** Make the rows those of `list`, in its order; touch only what differs. */
  show(list) {
    this.#removeAllBut(new Set(list.map(this.idOf)));
    let place = this.container.firstElementChild;
    for (const row of list) {
      const element = this.#upsert(this.idOf(row), row);
      if (element === place) place = place.nextElementSibling;
      else this.container.insertBefore(element, place);
    }
  }

  /** Fill the row with this id again: what its view depends on has changed. */
  refill(id) {
    if (this.#painted.has(id)) this.write(this.#elements.get(id), this.#painted.get(id));
  }

  #upsert(id, row) {
    let element = this.#elements.get(id);
    if (!element) {
      element = copyOf(this.template);
      element.dataset[this.key] = id;
      this.#elements.set(id, element);
    }
    if (this.#painted.get(id) !== row) {
      this.write(element, row);
      this.#painted.set(id, row);
    }
    return element;
  }

  #removeAllBut(ids) {
    for (const [id, element] of this.#elements) {
      if (ids.has(id)) continue;
      element.remove();
      this.#elements.delete(id);
      this.#painted.delete(id);
    }
  }
}

/** The part of `element` that shows `name`. */
export function field(element, name) {
  return element.querySelector(`[data-field="${name}"]`);
}

/** Write text as text; an element that already says it is left alone (selection, screen readers). */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Write a list of short texts as chips, the rest beyond `most` as a number. */
export function setChips(list, texts, most = Infinity) {
  const shown = texts.slice(0, most);
  if (texts.length > shown.length) shown.push(`and ${texts.length - shown.length} more`);
  if ([...list.children].map((chip) => chip.textContent).join("\0") === shown.join("\0")) return;
  list.replaceChildren(...shown.map((text) => {
    const chip = document.createElement("li");
    chip.dir = "auto";
    chip.textContent = text;
    return chip;
  }));
}
