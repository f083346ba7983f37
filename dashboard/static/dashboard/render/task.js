// One task in full, as sections of the drawer.

import { showAge } from "../clock.js";
import { ageElement, make } from "../dom.js";
import { absolute, count, duration } from "../format.js";
import { LANES, detailOf, wordsOf } from "../words.js";

/** The elements of the sections. */
export function sections(task) {
  const { waiting, last_error: error, description, metadata, result, history } = task;
  const failed = task.status === "dead_letter" ? "Error" : "Error of the last failed attempt";
  return [
    waiting && section("waiting", "Why it is not running", make("p", { class: "callout" }, waiting.message)),
    error && section("error", failed, block(error)),
    result && section("result", "Result", json(result)),
    section("description", "Description", block(description)),
    section("facts", "Facts", facts(task)),
    metadata && Object.keys(metadata).length > 0 && section("metadata", "Metadata", json(metadata)),
    section("history", "History", timeline(history)),
  ].filter(Boolean);
}

function section(name, title, content) {
  return make("section", { "data-section": name }, make("h3", {}, title), content);
}

function block(text) {
  return make("pre", { dir: "auto", tabindex: "0", role: "region", "aria-label": "Text" }, text);
}

function json(value) {
  return block(JSON.stringify(value, null, 2));
}

function facts(task) {
  const rows = [
    ["Lane", LANES[task.priority]],
    [task.status === "assigned" ? "With" : "Last with", task.assigned_to],
    ["Assigned", task.assigned_at, "age"],
    ["Failed attempts", `${count(task.retry_count)} of ${count(Math.max(1, task.max_retries))}`],
    ["Needs", task.needed_capabilities.join(", ")],
    ["Tokens", task.tokens_used === null ? null : count(task.tokens_used)],
    ["Submitted by", task.submitted_by],
    ["Submitted", task.created_at, "age"],
    ["Complete by", task.complete_by && absolute(task.complete_by)],
    ["Changed", task.updated_at, "age"],
    ["Generation", count(task.generation)],
  ].filter(([, value]) => value);
  return make("dl", { class: "facts" }, rows.map(([word, value, kind]) =>
    make("div", {}, make("dt", {}, word), kind === "age" ? ago(value) : make("dd", { dir: "auto" }, value))));
}

function ago(at) {
  const element = make("dd", {}, ageElement(), " ago");
  showAge(element, at);
  return element;
}

function timeline(history) {
  if (!history?.length) return make("p", { class: "muted" }, "The journal does not reach back that far.");
  return make("ol", { class: "timeline" }, history.map((entry, index) => step(entry, history[index - 1])));
}

function step(entry, before) {
  const { step: word, tone } = wordsOf(entry.event);
  const between = before ? `${duration(entry.timestamp - before.timestamp)} later` : absolute(entry.timestamp);
  const time = make("time", { datetime: new Date(entry.timestamp).toISOString(), title: absolute(entry.timestamp) }, between);
  const detail = detailOf(entry.event, entry.details);
  return make("li", { "data-event": entry.event, "data-tone": tone },
    make("span", { class: "shape", "aria-hidden": "true" }),
    make("b", {}, word),
    entry.agent_id ? [" ", make("span", { dir: "auto" }, entry.agent_id)] : null,
    " ", make("span", { class: "muted between" }, time),
    detail ? make("p", { dir: "auto" }, detail) : null);
}
