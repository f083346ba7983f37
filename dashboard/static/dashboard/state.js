// The page's picture of the hub: a snapshot, and what later patches make of it.
// Pure: nothing here touches the page. Rows that a patch does not name keep their identity,
// so a renderer may skip whatever is still the same object.

const KEYED = {
  agents: { id: "agent_id", order: ascending("agent_id") },
  offline_agents: { id: "agent_id", order: ascending("agent_id") },
  dead_letter_tasks: { id: "id", order: newest("failed_at", "id") },
  recent_completions: { id: "task_id", order: newest("completed_at", "task_id") },
};

/** The state after a `snapshot` frame's `data`: it replaces whatever was known. */
export function fromSnapshot(data) {
  return { offline_agents: [], ...data };
}

/**
 * The state after a `patch` frame. A keyed section comes as `{upsert: [rows], remove: [ids]}`,
 * any other one whole. A patch older than the state is already in it and changes nothing.
 */
export function withPatch(state, frame) {
  if (frame.seq < state.seq) return state;
  const next = { ...state, seq: frame.seq };
  for (const [section, change] of Object.entries(frame.data)) {
    next[section] = section in KEYED ? withRows(state[section], change, KEYED[section]) : change;
  }
  return next;
}

function withRows(rows, { upsert = [], remove = [] }, { id, order }) {
  const byId = new Map(rows.map((row) => [row[id], row]));
  for (const gone of remove) byId.delete(gone);
  for (const row of upsert) byId.set(row[id], row);
  return [...byId.values()].sort(order);
}

function ascending(key) {
  return (a, b) => compareText(a[key], b[key]);
}

function newest(time, key) {
  return (a, b) => b[time] - a[time] || compareText(a[key], b[key]);
}

/** Order by code point, as the hub's languages do; JavaScript's `<` goes by UTF-16 unit. */
export function compareText(a, b) {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) {
    const left = a.charCodeAt(i);
    const right = b.charCodeAt(i);
    if (left !== right) return rank(left) - rank(right);
  }
  return a.length - b.length;
}

// Surrogates stand for code points above U+FFFF, so they sort after every other unit.
function rank(unit) {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit;
}
