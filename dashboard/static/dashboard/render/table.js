// What the tables have in common: heads that sort, and parts for when nothing is listed.

import { onClick, showWhen } from "../dom.js";
import { compareText } from "../state.js";

/** A click on a head with `data-sort="key"` moves `aria-sort`; with `data-descends` the largest come first. */
export function sortable(table, changed) {
  onClick(table, "[data-sort]", (head) => {
    const descends = head.ariaSort ? head.ariaSort === "ascending" : "descends" in head.dataset;
    table.querySelector("[aria-sort]").removeAttribute("aria-sort");
    head.ariaSort = descends ? "descending" : "ascending";
    changed();
  });
}

/** As the heads say; `equals(a, b)` decides among equals. */
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

export function showSize(panel, shown, all) {
  showWhen(panel, shown ? "some" : all ? "unmatched" : "none");
}
