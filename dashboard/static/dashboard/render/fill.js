// What an element shows is said by the element itself, in its template:
//
//   data-show="tokens_used count"    its text: a value, and the function of format.js that writes it, or `age`
//   data-set="title:id lang:lang"    its attributes; without a value they go
//   data-link="id"                   an <a> to the task of this id
//   data-if="error"                  whether it is there at all
//   data-each="steps step-template"  its children: a copy of the template for each value of the list
//
// A value is named by its path, as in `waiting.message`. A text is only ever written as text. What says
// already what it should is left alone, for a selection and for screen readers.

import { showAge } from "../clock.js";
import { byId, setText, taskAddress } from "../dom.js";
import * as formats from "../format.js";

// A list fills its children itself.
const FILLED = ":is([data-show], [data-set], [data-link], [data-if], [data-each]):not(:scope [data-each] *)";
const parts = new WeakMap(); // of each element those that show something

/** Show `values` in `element` and what it holds, and give it back; a text stands for `{text}`. */
export function fill(element, values) {
  if (!parts.has(element)) parts.set(element, [element, ...element.querySelectorAll(FILLED)]);
  const valueAt = (path) => path.split(".").reduce((value, key) => value?.[key], typeof values === "string" ? { text: values } : values);
  for (const part of parts.get(element)) fillPart(part, valueAt);
  return element;
}

function fillPart(part, valueAt) {
  const { show, set, link, if: needed, each } = part.dataset;
  if (show) write(part, valueAt, ...show.split(" "));
  if (link) setLink(part, valueAt(link));
  for (const pair of set?.split(" ") ?? []) setAttribute(part, valueAt, ...pair.split(":"));
  if (needed) part.hidden = !valueAt(needed);
  if (each) showEach(part, valueAt, ...each.split(" "));
}

function write(element, valueAt, path, format) {
  const value = valueAt(path);
  if (format === "age") return showAge(element, value);
  const text = formats.plain(String((format ? formats[format](value) : value) ?? ""));
  const { link } = element.dataset;
  // A link that nobody can see is one that nobody can follow.
  setText(element, link && !formats.isVisible(text) ? valueAt(link) ?? "" : text);
  if (link) element.title = element.textContent; // its place may be too narrow
  if (format === "figure") element.title = formats.count(value);
}

function setLink(element, id) {
  if (id) element.href = taskAddress(id);
}

function setAttribute(element, valueAt, name, path) {
  const value = valueAt(path) ?? null;
  if (value === null) return element.removeAttribute(name);
  const text = formats.plain(String(value));
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

function showEach(list, valueAt, path, template) {
  const values = valueAt(path) ?? [];
  while (list.childElementCount > values.length) list.lastElementChild.remove();
  values.forEach((value, index) => fill(list.children[index] ?? list.appendChild(copyOf(byId(template))), value));
}

export function copyOf(template) {
  return template.content.firstElementChild.cloneNode(true);
}
