// JSON as the hub wrote it: JSON.parse would round whole numbers above 2⁵³ and sort keys that are numbers.

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s"{}[\],:]+/g;
const LEVEL = { "{": 1, "[": 1, "}": -1, "]": -1 };

/** Of an object the text of each value, by its key. */
export function valuesIn(json) {
  const found = {};
  let depth = 0;
  let key = null;
  let start = 0;
  for (const { 0: token, index } of json.matchAll(TOKEN)) {
    if (LEVEL[token] < 0) depth -= 1;
    if (key !== null && (depth === 0 || (depth === 1 && token === ","))) {
      found[key] = json.slice(start, index).trim();
      key = null;
    } else if (depth === 1 && key === null && token[0] === '"') {
      key = JSON.parse(token);
      start = json.indexOf(":", index + token.length) + 1;
    }
    if (LEVEL[token] > 0) depth += 1;
  }
  return found;
}

/** On lines of its own for each value, digit for digit. */
export function indented(json) {
  const tokens = json ? json.match(TOKEN) : [];
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  return tokens.map((token, place) => {
    const isEmpty = LEVEL[tokens[place - 1]] > 0 && LEVEL[token] < 0;
    depth += LEVEL[token] ?? 0;
    if (LEVEL[token] > 0) return LEVEL[tokens[place + 1]] < 0 ? token : token + line();
    if (LEVEL[token] < 0) return isEmpty ? token : line() + token;
    if (token === ",") return token + line();
    if (token === ":") return ": ";
    return token[0] === '"' ? JSON.stringify(JSON.parse(token)) : token;
  }).join("");
}
