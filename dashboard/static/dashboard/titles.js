// What the tasks heard of lately are called: most events name only their ids.

const MOST = 5_000;
const titles = new Map(); // task id → title, the newest last

/** Learn the titles of these events or rows; `id` is the key that holds the task's. */
export function learn(rows, id = "task_id") {
  for (const row of rows) {
    const title = row.title ?? row.description;
    if (!title) continue;
    titles.delete(row[id]);
    titles.set(row[id], title);
  }
  for (const old of titles.keys()) {
    if (titles.size <= MOST) break;
    titles.delete(old);
  }
}

/** The title of a task, or its id. */
export function titleOf(id) {
  return titles.get(id) ?? id;
}
