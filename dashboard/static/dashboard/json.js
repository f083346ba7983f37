// JSON as the hub wrote it: JSON.parse rounds numbers above 2⁵³ and sorts keys that are numbers.

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s"{}[\],:]+/g;
const LEVEL = { "{": 1, "[": 1, "}": -1, "]": -1 };

/** Of an object with plain keys the text of each value, by its key: indented, digit for digit. */
export function valuesIn(json) {
  const members = indented(json).slice(4, -2).split(/,\n  (?=")/); // only its own keys stand so far out
  return Object.fromEntries(members.map((member) => member.replaceAll("\n  ", "\n").slice(1).split(/": (.*)/s, 2)));
}

function indented(json) {
  const tokens = json.match(TOKEN);
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
