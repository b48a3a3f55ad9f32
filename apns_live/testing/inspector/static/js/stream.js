// The event stream: one connection, reopened with growing pauses when it breaks.

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;

export class Stream {
  constructor(path, store) {
    this.path = path;
    this.store = store;
    this.pause = FIRST_PAUSE;
    this.source = null;
    this.timer = null;
  }

  open() {
    clearTimeout(this.timer);
    this.source?.close();
    const source = new EventSource(this.path);
    this.source = source;
    const on = (name, act) =>
      source.addEventListener(name, (event) => {
        if (this.source === source) act(JSON.parse(event.data));
      });
    on("snapshot", (data) => {
      this.pause = FIRST_PAUSE;
      this.store.snapshot(data);
      if (this.store.link.state !== "live") this.store.setLink("live");
    });
    on("delta", (data) => this.store.delta(data));
    source.onerror = () => {
      if (this.source === source) this.broken();
    };
  }

  broken() {
    // The browser's own reconnecting knows no growing pause and gives up on an error status.
    this.source.close();
    this.source = null;
    const wait = this.pause * (0.75 + Math.random() / 2);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
    this.store.setLink("broken", performance.now() + wait);
    this.timer = setTimeout(() => this.open(), wait);
  }
}
