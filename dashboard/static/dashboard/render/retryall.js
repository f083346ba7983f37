// All that died of one cause, one after the other: the queue is not to be flooded.

import { announce, byId, onClick } from "../dom.js";
import { count, plural } from "../format.js";
import { fill } from "./fill.js";

const PACE_MS = 50; // at most 20 a second
const TOLD_MS = 30_000; // how long the end stays on the page

const part = (name) => byId(`retry-${name}`);

let run = null; // {state, done, refused, total, text, isStopped}, while one is under way
let proposed = null; // the group that the dialog asks about

/** `tasksOf(group)` are the pages of its tasks; `onEnd()` is called when it is over. */
export function start({ retries, tasksOf, onEnd }) {
  part("dialog").addEventListener("close", async () => {
    if (part("dialog").returnValue !== "retry") return;
    await retryAll(retries, tasksOf(proposed.group), proposed.count);
    onEnd();
  });
  // No further one; the one under way still gets its answer.
  onClick(part("run"), "#retry-stop", () => { run.isStopped = true; });
}

export function propose(group) {
  if (run) {
    announce("Another group is being retried: wait for it, or stop it.");
    return part("stop").focus();
  }
  proposed = group;
  part("dialog").returnValue = "";
  fill(part("dialog"), { ...group, these: group.count === 1 ? "this" : "these", tasks: plural(group.count, "task") });
  part("dialog").showModal();
}

async function retryAll(retries, pages, total) {
  run = { state: "running", done: 0, refused: 0, total };
  tell();
  try {
    run.state = await retryEach(retries, pages);
  } catch (error) {
    Object.assign(run, { state: "failed", text: `The hub did not list the tasks (${error.status ?? "no connection"}).` });
  }
  if (document.activeElement === part("stop")) byId("dead-title").focus();
  tell();
  run = null;
  setTimeout(() => { part("run").hidden = run === null; }, TOLD_MS);
  announce(part("told").textContent);
}

// At most as many as were agreed upon: what dies meanwhile is left alone.
async function retryEach(retries, pages) {
  for await (const { tasks } of pages) {
    for (const { id } of tasks) {
      if (run.isStopped) return "stopped";
      if (run.done + run.refused === run.total) return "done";
      const pause = new Promise((resolve) => setTimeout(resolve, PACE_MS));
      const [{ state, text, hubAway }] = await Promise.all([retries.ask(id), pause]);
      if (hubAway) {
        run.text = text;
        return "failed";
      }
      if (state === "requeued") run.done += 1;
      else run.refused += 1;
      tell();
    }
  }
  return run.isStopped ? "stopped" : "done";
}

function tell() {
  const { state, done, refused, total, text } = run;
  const figures = `${count(done)} of ${count(total)} back in the queue`;
  const told = [(part("told").dataset[state] ?? "") + figures, refused && `${count(refused)} refused`, text].filter(Boolean).join(" · ");
  part("run").hidden = false;
  fill(part("run"), { ...run, tried: done + refused, told, isRunning: state === "running" });
}
