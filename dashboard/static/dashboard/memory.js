// What this browser remembers for the page; where storage is blocked, nothing.

export function recall(name) {
  try {
    return localStorage.getItem(`agentcom.${name}`);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`agentcom.${name}`, value);
  } catch {
    // Then it holds until the page is left.
  }
}
