// The socket to the hub: kept open, watched for silence, and honest about its state.
//
//   live          frames arrive, or a probe was answered lately
//   reconnecting  it broke just now; `nextTry` says when it is tried again
//   offline       it has been broken for a while: what the page shows is old

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const STABLE_AFTER_MS = 10_000; // a socket that lived shorter does not reset the backoff
const OFFLINE_AFTER_MS = 10_000;
const OPENING_MS = 10_000; // a handshake that hangs longer is given up
const SILENCE_MS = 30_000; // an idle hub sends nothing: ask, to tell idle from dead
const ANSWER_MS = 10_000;

export class Connection {
  #socket = null;
  #attempt = 0;
  #opened = 0;
  #retryTimer = 0;
  #watchTimer = 0;
  #status = { state: "reconnecting", brokenSince: Date.now(), nextTry: null };

  /** `onFrame(frame)` gets every frame, parsed; `onStatus(status)` every change of state. */
  constructor(url, { onFrame, onStatus }) {
    this.url = url;
    this.onFrame = onFrame;
    this.onStatus = onStatus;
  }

  /** Connect and stay connected. */
  start() {
    addEventListener("online", () => this.tryNow());
    addEventListener("offline", () => this.#probe());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.isLive ? this.#probe() : this.tryNow();
    });
    setInterval(() => this.#age(), 1000);
    this.#open();
  }

  get isLive() {
    return this.#status.state === "live";
  }

  /** Send a message; false where there is no open socket to take it. */
  send(message) {
    if (!this.isLive || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Do not wait for the backoff: somebody asked, or the network came back. */
  tryNow() {
    if (this.#socket === null) this.#open();
  }

  #open() {
    clearTimeout(this.#retryTimer);
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    this.#opened = 0;
    this.#change({ nextTry: null });
    this.#expect(socket, OPENING_MS);
    socket.onopen = () => {
      this.#opened = Date.now();
      socket.send(JSON.stringify({ type: "subscribe", patches: true }));
    };
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      this.#watch();
      this.onFrame(frame);
      // Only a snapshot makes the picture true again, so only then is it called live.
      if (frame.type === "snapshot") this.#change({ state: "live", brokenSince: null });
    };
    socket.onclose = () => this.#broken(socket);
  }

  #broken(socket) {
    if (socket !== this.#socket) return; // given up before; its successor is on its way
    clearTimeout(this.#watchTimer);
    this.#socket = null;
    if (this.#opened && Date.now() - this.#opened > STABLE_AFTER_MS) this.#attempt = 0;
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempt);
    // Half fixed, half jitter: a hub that comes back is not met by everyone at once.
    const delay = longest / 2 + (Math.random() * longest) / 2;
    this.#attempt += 1;
    this.#retryTimer = setTimeout(() => this.#open(), delay);
    const nextTry = Date.now() + delay;
    if (this.isLive) this.#change({ state: "reconnecting", brokenSince: Date.now(), nextTry });
    else this.#change({ nextTry });
  }

  #age() {
    const { state, brokenSince } = this.#status;
    if (state === "reconnecting" && Date.now() - brokenSince > OFFLINE_AFTER_MS) this.#change({ state: "offline" });
  }

  #watch() {
    clearTimeout(this.#watchTimer);
    this.#watchTimer = setTimeout(() => this.#probe(), SILENCE_MS);
  }

  #probe() {
    if (this.send({ type: "request_snapshot" })) this.#expect(this.#socket, ANSWER_MS);
  }

  #expect(socket, ms) {
    clearTimeout(this.#watchTimer);
    this.#watchTimer = setTimeout(() => {
      // close() alone would wait for an answer from a peer that may be gone.
      socket.close();
      this.#broken(socket);
    }, ms);
  }

  #change(difference) {
    this.#status = { ...this.#status, ...difference };
    this.onStatus(this.#status);
  }
}
