// What the tables have in common: heads that sort, and parts for when nothing is listed.

import { onClick, showWhen } from "../dom.js";
import { compareText } from "../state.js";

/**
 * `changed()` when another of the heads with `data-sort="key"` has got the `aria-sort`, by a click;
 * the first brings to the top what is largest where it says `data-descends`.
 */
export function sortable(table, changed) {
  onClick(table, "[data-sort]", (head) => {
    const descends = head.ariaSort ? head.ariaSort === "ascending" : "descends" in head.dataset;
    table.querySelector("[aria-sort]").removeAttribute("aria-sort");
    head.ariaSort = descends ? "descending" : "ascending";
    changed();
  });
}

/** `rows` as the heads of `table` say; `equals(a, b)` decides among equals. */
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

/** Show what `panel` has for a list of `shown` of `all` rows. */
export function showSize(panel, shown, all) {
  showWhen(panel, shown ? "some" : all ? "unmatched" : "none");
}
