// Rows that follow a list: upserted by a stable id, in the list's order, copied from a <template>.

import { copyOf, fill } from "./fill.js";

export class Rows {
  #shown = new Map(); // id → {element, row}, the row that it shows

  /**
   * What the server painted in `container` is taken over by its `data-row`. `idOf(row)` is a stable id,
   * `view(row)` the values that the template names (fill.js).
   */
  constructor(container, template, { idOf, view = (row) => row }) {
    Object.assign(this, { container, template, idOf, view });
    for (const element of container.children) this.#shown.set(element.dataset.row, { element });
  }

  get(id) {
    return this.#shown.get(id)?.element;
  }

  /** Touch only what differs from `list`. */
  show(list) {
    this.#removeAllBut(new Set(list.map(this.idOf)));
    let place = this.container.firstElementChild;
    for (const row of list) {
      const element = this.#upsert(this.idOf(row), row);
      if (element === place) place = place.nextElementSibling;
      else this.container.insertBefore(element, place);
    }
  }

  /** What the view of this row depends on has changed. */
  refill(id) {
    const { element, row } = this.#shown.get(id) ?? {};
    if (row) fill(element, this.view(row));
  }

  #upsert(id, row) {
    const shown = this.#shown.get(id) ?? this.#add(id);
    if (shown.row !== row) fill(shown.element, this.view(row));
    shown.row = row;
    return shown.element;
  }

  #add(id) {
    const shown = { element: copyOf(this.template) };
    shown.element.dataset.row = id;
    this.#shown.set(id, shown);
    return shown;
  }

  #removeAllBut(ids) {
    for (const [id, { element }] of this.#shown) {
      if (ids.has(id)) continue;
      element.remove();
      this.#shown.delete(id);
    }
  }
}
