// The socket to the hub: kept open, watched for silence, and honest about its state.
//
//   live          frames arrive, or a probe was answered lately
//   reconnecting  it broke just now; `nextTry` says when it is tried again
//   stale         it has been broken for a while: what the page shows is old
//   offline       and trying is of no use: this computer has no network, or the login has ended

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const STABLE_AFTER_MS = 10_000; // a socket that lived shorter does not reset the backoff
const STALE_AFTER_MS = 10_000;
const OPENING_MS = 10_000; // a handshake that hangs longer is given up
const SILENCE_MS = 20_000; // an idle hub sends nothing: ask, to tell idle from dead
const ANSWER_MS = 10_000;
const SESSION_ENDED = 4403;
const GATE = "/api/dashboard/state"; // says whether this browser may look

export class Connection {
  #socket = null;
  #timer = 0; // of the next try, or of how long the socket may be silent
  #attempt = 0;
  #opened = 0;
  #knowsPing = false;
  #status = { state: "reconnecting", brokenSince: Date.now(), nextTry: null, sessionEnded: false };

  /** `onFrame(frame)` gets every frame, `onStatus(status)` every change and each second of a broken one. */
  constructor(url, { onFrame, onStatus }) {
    Object.assign(this, { url, onFrame, onStatus });
  }

  start() {
    addEventListener("online", () => this.tryNow());
    addEventListener("offline", () => this.#probe());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#isLive ? this.#probe() : this.tryNow();
    });
    setInterval(() => this.#age(), 1000);
    this.#open();
  }

  get #isLive() {
    return this.#status.state === "live";
  }

  /** Send a message; false where there is no open socket to take it. */
  send(message) {
    if (!this.#isLive || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Not waiting for the backoff. */
  tryNow() {
    if (!this.#socket) this.#open();
  }

  #open() {
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    this.#opened = 0;
    this.#change({ nextTry: null });
    this.#expect(OPENING_MS);
    socket.onopen = () => {
      this.#opened = Date.now();
      socket.send(JSON.stringify({ type: "subscribe", patches: true }));
    };
    // One that was given up is no longer heard.
    socket.onmessage = ({ data }) => socket === this.#socket && this.#heard(JSON.parse(data));
    socket.onclose = ({ code }) => socket === this.#socket && this.#closed(code);
  }

  #heard(frame) {
    if (frame.type === "session_ended") return this.#endSession();
    this.#knowsPing ||= frame.type === "pong";
    this.#after(SILENCE_MS, () => this.#probe());
    this.onFrame(frame);
    // Only a snapshot makes the picture true again, so only then is it called live.
    if (frame.type === "snapshot") this.#change({ state: "live", brokenSince: null, sessionEnded: false });
  }

  #closed(code) {
    if (code === SESSION_ENDED) return this.#endSession();
    if (!this.#opened) this.#askWhetherWeMayLook();
    this.#retry();
  }

  #retry() {
    this.#socket = null;
    if (this.#opened && Date.now() - this.#opened > STABLE_AFTER_MS) this.#attempt = 0;
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempt);
    this.#attempt += 1;
    // Half fixed, half jitter: a hub that comes back is not met by everyone at once.
    const delay = (longest * (1 + Math.random())) / 2;
    this.#after(delay, () => this.#open());
    const nextTry = Date.now() + delay;
    this.#change(this.#isLive ? { state: "reconnecting", brokenSince: Date.now(), nextTry } : { nextTry });
  }

  // A refused handshake looks like a hub that is away; only over HTTP does the hub say which it is.
  async #askWhetherWeMayLook() {
    const answer = await fetch(GATE, { method: "HEAD" }).catch(() => null);
    if (answer?.status === 401 || answer?.status === 403) this.#endSession();
  }

  // From here on only a person helps. They may log in in another tab: coming back to this one tries again.
  #endSession() {
    const socket = this.#socket;
    this.#socket = null;
    clearTimeout(this.#timer);
    const brokenSince = this.#status.brokenSince ?? Date.now();
    this.#change({ state: "offline", brokenSince, nextTry: null, sessionEnded: true });
    socket?.close();
  }

  #age() {
    const { brokenSince, sessionEnded } = this.#status;
    if (this.#isLive || sessionEnded) return;
    const isOld = Date.now() - brokenSince > STALE_AFTER_MS;
    this.#change(isOld ? { state: navigator.onLine ? "stale" : "offline" } : {}); // in any case time has passed
  }

  #probe() {
    if (!this.send({ type: "ping" })) return;
    // A hub that has never answered a ping may be too old to know it.
    if (!this.#knowsPing) this.send({ type: "request_snapshot" });
    this.#expect(ANSWER_MS);
  }

  // close() alone would wait for an answer from a peer that may be gone.
  #expect(ms) {
    this.#after(ms, () => {
      this.#socket.close();
      this.#retry();
    });
  }

  #after(ms, act) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, ms);
  }

  #change(difference) {
    this.#status = { ...this.#status, ...difference };
    this.onStatus(this.#status);
  }
}
