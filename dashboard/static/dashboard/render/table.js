// What the tables have in common: heads that sort, and a word on how much is listed.

import { setText, showWhen } from "../dom.js";
import { countOf } from "../format.js";
import { compareText } from "../state.js";

/**
 * Let the heads with `data-sort="key"` sort `table`: `aria-sort` says by which one, and `changed()` is
 * called when it is another. With `data-descends` the first click brings the largest to the top.
 */
export function sortable(table, changed) {
  table.tHead.addEventListener("click", ({ target }) => {
    const head = target.closest("[data-sort]");
    if (!head) return;
    const descends = head.ariaSort ? head.ariaSort === "ascending" : "descends" in head.dataset;
    table.querySelector("[aria-sort]").removeAttribute("aria-sort");
    head.ariaSort = descends ? "descending" : "ascending";
    changed();
  });
}

/** `rows` in the order that the heads of `table` say; `equals(a, b)` decides among equals. */
export function sorted(table, rows, equals) {
  const head = table.querySelector("[aria-sort]");
  const key = head.dataset.sort;
  const sign = head.ariaSort === "descending" ? -1 : 1;
  return rows.toSorted((a, b) => sign * compare(a[key], b[key]) || equals(a, b));
}

// What is missing comes before everything else.
function compare(a, b) {
  return typeof (a ?? b) === "string" ? compareText(a ?? "", b ?? "") : (a ?? -1) - (b ?? -1);
}

/** Say in `note` and by the parts of `panel` that of `all` rows `shown` are listed. */
export function showSize(panel, note, shown, all) {
  setText(note, countOf(shown, all));
  showWhen(panel, shown ? "some" : all ? "unmatched" : "none");
}
