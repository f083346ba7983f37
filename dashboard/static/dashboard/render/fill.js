// What an element shows is said by the element itself, in its template:
//
//   data-show="tokens_used count"    its text: the value, and how it is written (a function of format.js)
//   data-set="title:id lang:lang"    its attributes; without a value they go
//   data-link="id"                   an <a> to the task of this id
//   data-if="error"                  whether it is there at all
//   data-each="steps step-template"  its children: a copy of the template for each value of the list
//
// A value is named by its path, as in `waiting.message`. A text is only ever written as text. What
// says already what it should is left alone: a selection, the keyboard's place, a screen reader.

import { showAge } from "../clock.js";
import { byId, setText, taskAddress } from "../dom.js";
import * as formats from "../format.js";

// A list fills its children itself.
const FILLED = ":is([data-show], [data-set], [data-link], [data-if], [data-each]):not(:scope [data-each] *)";
const parts = new WeakMap(); // element → those of its parts that show something

/** Show `values` in `element` and what it holds; a text stands for `{text}`. */
export function fill(element, values) {
  if (!parts.has(element)) parts.set(element, [element, ...element.querySelectorAll(FILLED)]);
  for (const part of parts.get(element)) fillPart(part, typeof values === "string" ? { text: values } : values);
}

function fillPart(part, values) {
  const { show, set, link, if: needed, each } = part.dataset;
  if (show) write(part, values, ...show.split(" "));
  if (link) setLink(part, valueAt(values, link));
  if (set) for (const pair of set.split(" ")) setAttribute(part, values, ...pair.split(":"));
  if (needed) part.hidden = !valueAt(values, needed);
  if (each) showEach(part, values, ...each.split(" "));
}

/** Write the value at `path` into `element`, in a format of format.js or as an `age`. */
export function write(element, values, path, format) {
  const value = valueAt(values, path);
  if (format === "age") showAge(element, value);
  else setText(element, format ? formats[format](value) : String(value ?? ""));
}

/** The value at a path such as `queue.by_status.queued`, if there is one. */
export function valueAt(values, path) {
  return path.split(".").reduce((value, key) => value?.[key], values);
}

function setLink(element, id) {
  if (id) element.href = taskAddress(id);
  element.title = id ?? "";
}

function setAttribute(element, values, name, path) {
  const value = valueAt(values, path) ?? null;
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

function showEach(list, values, path, template) {
  const shown = valueAt(values, path) ?? [];
  while (list.childElementCount > shown.length) list.lastElementChild.remove();
  shown.forEach((value, index) => fill(list.children[index] ?? list.appendChild(copyOf(byId(template))), value));
}

/** A new element like the one in this `<template>`. */
export function copyOf(template) {
  return template.content.firstElementChild.cloneNode(true);
}
