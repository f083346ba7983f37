// What the tables have in common: heads that sort, and parts for when nothing is listed.

import { showWhen } from "../dom.js";
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

/** Show the parts of `panel` that are for a list with `shown` of `all` rows, see `showWhen`. */
export function showSize(panel, shown, all) {
  showWhen(panel, shown ? "some" : all ? "unmatched" : "none");
}
