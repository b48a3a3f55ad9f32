// What the page knows, kept whole and bounded, and what changed since the page was last drawn.

export const MOST_DEVICES = 1000;
export const MOST_PUSHES = 500;

export class Store {
  constructor() {
    this.link = { state: "connecting", retryAt: null };
    this.changes = noChanges();
    this.onChange = () => {};
    this.clear();
  }

  clear() {
    this.fake = null;
    this.clock = null;
    this.clockAt = 0;
    this.counts = null;
    this.devices = new Map();
    this.devicesTotal = 0;
    this.pushes = new Map();
    this.lastPush = new Map();
    this.skipped = 0;
    this.connections = [];
    this.faults = [];
  }

  snapshot(data) {
    this.clear();
    this.fake = data.fake;
    this.devices = new Map(data.devices.map((device) => [device.id, device]));
    Object.assign(this.changes, {
      order: true,
      all: true,
      pushes: true,
      connections: true,
      faults: true,
      fake: true,
    });
    this.take(data);
  }

  delta(data) {
    for (const device of data.devices) {
      if (!this.devices.has(device.id)) {
        if (this.devices.size >= MOST_DEVICES) continue;
        this.changes.order = true;
      }
      this.devices.set(device.id, device);
      this.changes.devices.add(device.id);
    }
    for (const id of data.removed ?? []) {
      this.devices.delete(id);
      this.lastPush.delete(id);
      this.changes.order = true;
    }
    this.take(data);
  }

  take(data) {
    this.clock = data.clock;
    this.clockAt = performance.now();
    this.counts = data.counts;
    this.devicesTotal = data.devices_total;
    this.skipped += data.pushes_skipped ?? 0;
    for (const push of data.pushes) {
      this.pushes.set(push.number, push);
      if (push.device && this.devices.has(push.device)) this.lastPush.set(push.device, push);
      this.changes.pushes = true;
    }
    for (const number of this.pushes.keys()) {
      if (this.pushes.size <= MOST_PUSHES) break;
      this.pushes.delete(number);
    }
    if (data.connections) {
      this.connections = data.connections;
      this.changes.connections = true;
    }
    if (data.faults) {
      this.faults = data.faults;
      this.changes.faults = true;
    }
    this.changes.counts = true;
    this.onChange();
  }

  /** Put a fresher row of one phone in place, as an answer of the API brings it. */
  putDevice(device) {
    if (!this.devices.has(device.id)) return;
    this.devices.set(device.id, device);
    this.changes.devices.add(device.id);
    this.onChange();
  }

  setLink(state, retryAt = null) {
    this.link = { state, retryAt };
    this.changes.link = true;
    this.onChange();
  }

  /** Return what changed since the last call, and start afresh. */
  takeChanges() {
    const changes = this.changes;
    this.changes = noChanges();
    return changes;
  }

  /** The fake's time in seconds since 1970. A simulated clock stands between two messages. */
  now() {
    if (!this.clock) return Date.now() / 1000;
    if (this.clock.simulated) return this.clock.now;
    return this.clock.now + (performance.now() - this.clockAt) / 1000;
  }
}

function noChanges() {
  return {
    all: false,
    order: false,
    devices: new Set(),
    pushes: false,
    calls: false,
    connections: false,
    faults: false,
    counts: false,
    fake: false,
    link: false,
  };
}
