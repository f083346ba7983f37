// What this browser remembers for the page; where storage is blocked, nothing.

/** What was remembered under `name`, or null. */
export function recall(name) {
  try {
    return localStorage.getItem(`agentcom.${name}`);
  } catch {
    return null;
  }
}

/** Remember `value`, or with null forget what was remembered. */
export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(`agentcom.${name}`);
    else localStorage.setItem(`agentcom.${name}`, value);
  } catch {
    // Then it holds until the page is left.
  }
}
