// What the gateway beside the fake was asked, and what its calls became. Read once a second.

import { get, post } from "./api.js";
import { own } from "./dom.js";

const MOST_CALLS = 100;
const MOST_OPERATIONS = 120;
const SLACK = 0.002;
const SETTLED = new Set(["done", "superseded", "failed"]);

export class Gateway {
  constructor() {
    this.setup = null;
    this.onChange = () => {};
    this.clear();
  }

  clear() {
    this.calls = new Map();
    this.operations = new Map();
    this.outcomes = new Map();
    this.after = 0;
  }

  /** Ask whether there is a gateway; returns its setup, or null. */
  async open() {
    this.setup = await get("/gateway");
    return this.setup;
  }

  /** Make a call; the server adds the key of the API. Returns `{status, body}`. */
  send(api, method, path, body) {
    return post("/gateway/send", { api, method, path, body });
  }

  async read() {
    if (this.reading) return;
    this.reading = true;
    try {
      await this.readCalls();
      if (this.calls.size) await this.readOperations();
    } finally {
      this.reading = false;
    }
  }

  async readCalls() {
    const all = [...this.calls.values()];
    const waiting = all.find((call) => call.ended === null);
    const after = waiting ? waiting.number - 1 : (all.at(-1)?.number ?? 0);
    const found = await get(`/gateway/calls?after=${after}`);
    for (const call of found) this.calls.set(call.number, call);
    if (found.length) this.onChange();
    for (const number of this.calls.keys()) {
      if (this.calls.size <= MOST_CALLS) break;
      this.calls.delete(number);
    }
  }

  /** Read new operations, and the outcomes of those that have changed. */
  async readOperations() {
    const ask = async (path) => (await this.send("native", "GET", path, "")).body;
    for (let more = true; more;) {
      const page = await ask(`/v1/operations?after=${this.after}&limit=100`);
      for (const each of page.items ?? []) this.operations.set(each.id, each);
      this.after = page.items?.at(-1)?.row ?? this.after;
      more = Boolean(page.next);
    }
    for (const [id, known] of this.operations) {
      const path = `/v1/operations/${id}`;
      const before = this.outcomes.get(id);
      const now = SETTLED.has(known.status) ? known : await ask(path);
      this.operations.set(id, now);
      const told = now.accepted + now.failed;
      if (before?.told === told && now.status === known.status) continue;
      const items = told ? ((await ask(`${path}/outcomes`)).items ?? []) : [];
      this.outcomes.set(id, { told, items });
      this.onChange();
    }
    for (const id of this.operations.keys()) {
      if (this.operations.size <= MOST_OPERATIONS) break;
      this.operations.delete(id);
      this.outcomes.delete(id);
    }
  }

  /** The operations that were accepted during a call of their API, each with its outcomes. */
  operationsOf(call) {
    const ended = call.ended ?? call.at + 60;
    return [...this.operations.values()]
      .filter((each) => {
        const at = Date.parse(each.created_at) / 1000;
        return each.dialect === call.api && at >= call.at - SLACK && at <= ended + SLACK;
      })
      .map((each) => ({ ...each, outcomes: this.outcomes.get(each.id)?.items ?? [] }));
  }

  nameOf(api) {
    return own(this.setup.apis, api)?.name ?? (api === "fcm" ? "FCM" : api);
  }
}
