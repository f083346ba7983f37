// What the tasks heard of lately are called: most events name only their ids.

const MOST = 5_000;
const titles = new Map(); // task id → title, the newest last

/** Before all that ask for titles. */
export function start({ onState, onFrame }) {
  onState((state, previous) => {
    if (state.recent_completions !== previous?.recent_completions) learn(state.recent_completions);
    if (state.dead_letter_tasks !== previous?.dead_letter_tasks) learn(state.dead_letter_tasks);
  });
  onFrame("events", ({ data }) => learn(data));
}

/** The title of a task, or its id. */
export function titleOf(id) {
  return titles.get(id) ?? id;
}

function learn(about) {
  for (const { id, task_id: task = id, description, title = description } of about) {
    if (!title) continue;
    titles.delete(task);
    titles.set(task, title);
  }
  for (const oldest of titles.keys()) {
    if (titles.size <= MOST) break;
    titles.delete(oldest);
  }
}
