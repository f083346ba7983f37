// The socket to the hub: kept open, watched for silence, and honest about its state.
//
//   live          frames arrive, or a probe was answered lately
//   reconnecting  it broke just now; `nextTry` says when it is tried again
//   stale         it has been broken for a while: what the page shows is old
//   polling       no socket gets through, but the hub answers over HTTP, and is asked every few seconds
//   offline       and trying is of no use: this computer has no network, or the login has ended

import { askState } from "./ask.js";

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const STABLE_AFTER_MS = 10_000; // then the backoff begins anew
const STALE_AFTER_MS = 10_000;
const OPENING_MS = 10_000; // a longer handshake is given up
const SILENCE_MS = 20_000; // then a ping tells an idle hub from a dead one
const ANSWER_MS = 10_000;
const SESSION_ENDED = 4403;
const POLL_MS = 3_000;

export class Connection {
  #socket = null;
  #timer = 0; // of the next try, or of how long the socket may be silent
  #attempt = 0;
  #opened = 0;
  #knowsPing = false;
  #pollTimer = 0; // of the next question over HTTP
  #isPolling = false; // while one is under way
  #answersHttp = false; // since the last socket that was live
  #status = { state: "reconnecting", brokenSince: Date.now(), nextTry: null, sessionEnded: false };

  /** `onFrame(frame)` gets every frame, `onStatus(status)` every change, and while broken every second. */
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
    socket.onclose = ({ code }) => socket === this.#socket && (code === SESSION_ENDED ? this.#endSession() : this.#retry());
  }

  #heard(frame) {
    if (frame.type === "session_ended") return this.#endSession();
    this.#knowsPing ||= frame.type === "pong";
    this.#after(SILENCE_MS, () => this.#probe());
    this.onFrame(frame);
    // Only a snapshot makes the picture true again.
    if (frame.type !== "snapshot") return;
    clearTimeout(this.#pollTimer);
    this.#answersHttp = false;
    this.#change({ state: "live", brokenSince: null, sessionEnded: false });
  }

  #retry() {
    if (!this.#opened) this.#askOverHttp();
    else if (Date.now() - this.#opened > STABLE_AFTER_MS) this.#attempt = 0;
    this.#socket = null;
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempt++);
    // Half of it jitter: a hub that comes back is not met by everyone at once.
    const delay = (longest * (1 + Math.random())) / 2;
    this.#after(delay, () => this.#open());
    const nextTry = Date.now() + delay;
    this.#change(this.#isLive ? { state: "reconnecting", brokenSince: Date.now(), nextTry } : { nextTry });
  }

  // A refused handshake looks like a hub that does not run: only HTTP shows that the login has ended, or
  // that a proxy blocks sockets.
  async #askOverHttp() {
    if (this.#isPolling) return;
    clearTimeout(this.#pollTimer);
    this.#isPolling = true;
    const { status, frame } = await askState();
    this.#isPolling = false;
    if (this.#isLive || this.#status.sessionEnded) return;
    if (status === 401 || status === 403) return this.#endSession();
    if (!this.#answersHttp) {
      this.#answersHttp = Boolean(frame);
      if (frame) {
        this.onFrame(frame);
        this.tryNow(); // it may have come back just now, and its sockets with it
      }
      return;
    }
    this.#follow(frame);
    this.#pollTimer = setTimeout(() => this.#askOverHttp(), POLL_MS);
  }

  #follow(frame) {
    if (frame) {
      this.onFrame(frame);
      this.#change({ state: "polling", brokenSince: null });
    } else if (this.#status.state === "polling") {
      this.#change({ state: "reconnecting", brokenSince: Date.now() });
    }
  }

  // Only a person helps now, perhaps in another tab: coming back to this one tries again.
  #endSession() {
    const socket = this.#socket;
    this.#socket = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#pollTimer);
    const brokenSince = this.#status.brokenSince ?? Date.now();
    this.#change({ state: "offline", brokenSince, nextTry: null, sessionEnded: true });
    socket?.close();
  }

  #age() {
    const { brokenSince, sessionEnded } = this.#status;
    if (brokenSince === null || sessionEnded) return;
    const isOld = Date.now() - brokenSince > STALE_AFTER_MS;
    this.#change(isOld && { state: navigator.onLine ? "stale" : "offline" });
  }

  #probe() {
    if (!this.send({ type: "ping" })) return;
    // A hub that has never answered a ping may be too old to know it.
    if (!this.#knowsPing) this.send({ type: "request_snapshot" });
    this.#expect(ANSWER_MS);
  }

  // close() alone would wait for a peer that may be gone.
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
