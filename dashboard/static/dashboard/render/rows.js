// Rows that follow a list: upserted by a stable id, in the list's order, copied from a <template>.

export class Rows {
  #elements = new Map(); // id → element
  #painted = new Map(); // id → the row it shows

  /**
   * `container`: where the rows live; what the server painted there is taken over by its `data-KEY`.
   * `idOf(row, index)` is a stable id; `fill(element, row)` writes the row into its element.
   */
  constructor(container, template, { key, idOf, fill }) {
    this.container = container;
    this.template = template;
    this.key = key;
    this.idOf = idOf;
    this.fill = fill;
    for (const element of container.children) this.#elements.set(element.dataset[key], element);
  }

  /** The element that shows the row with this id, if there is one. */
  get(id) {
    return this.#elements.get(id);
  }

  /** Make the rows those of `list`, in its order; touch only what differs. */
  show(list) {
    const ids = list.map((row, index) => this.idOf(row, index));
    this.#removeAllBut(new Set(ids));
    let place = this.container.firstElementChild;
    list.forEach((row, index) => {
      const element = this.#upsert(ids[index], row);
      if (element === place) place = place.nextElementSibling;
      else this.container.insertBefore(element, place);
    });
  }

  #upsert(id, row) {
    let element = this.#elements.get(id);
    if (!element) {
      element = this.template.content.firstElementChild.cloneNode(true);
      element.dataset[this.key] = id;
      this.#elements.set(id, element);
    }
    if (this.#painted.get(id) !== row) {
      this.fill(element, row);
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
