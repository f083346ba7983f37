// The page's picture of the hub: a snapshot, and what patches make of it. Rows that a patch does not name
// stay the same objects, and renderers skip them.

// Sections that are lists: by the id, or the newest first.
const KEYED = {
  agents: { id: "agent_id" },
  offline_agents: { id: "agent_id" },
  dead_letter_tasks: { id: "id", newest: "failed_at" },
  recent_completions: { id: "task_id", newest: "completed_at" },
};

/** Of the `data` of a `snapshot` frame. */
export function fromSnapshot(data) {
  return { offline_agents: [], ...data };
}

/**
 * In a `patch` frame a keyed section comes as `{upsert: [rows], remove: [ids]}`, any other one whole.
 * A patch older than the state is already in it.
 */
export function withPatch(state, frame) {
  if (frame.seq < state.seq) return state;
  const next = { ...state, ...frame.data, seq: frame.seq };
  for (const section in KEYED) {
    if (section in frame.data) next[section] = withRows(state[section], frame.data[section], KEYED[section]);
  }
  return next;
}

function withRows(rows, { upsert = [], remove = [] }, { id, newest }) {
  const byId = new Map(rows.map((row) => [row[id], row]));
  for (const gone of remove) byId.delete(gone);
  for (const row of upsert) byId.set(row[id], row);
  return [...byId.values()].sort((a, b) => (newest && b[newest] - a[newest]) || compareText(a[id], b[id]));
}

/** By code point, as the hub does; `<` goes by UTF-16 unit. */
export function compareText(a, b) {
  let at = 0;
  while (at < a.length && a[at] === b[at]) at += 1;
  return (a.codePointAt(at) ?? -1) - (b.codePointAt(at) ?? -1);
}
