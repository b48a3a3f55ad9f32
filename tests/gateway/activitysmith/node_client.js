// Drives ActivitySmith's own Node client: one command a line in, one answer a line out.
"use strict";
const readline = require("node:readline");
const ActivitySmith = require("activitysmith");

const clients = new Map();

// The client has no option for its address; each of its parts has a base path to be set.
function clientFor(base, secret) {
  const known = `${base} ${secret}`;
  if (!clients.has(known)) {
    const client = new ActivitySmith({ apiKey: secret });
    for (const api of [
      client.notifications.api,
      client.liveActivities.api,
      client.metrics.api,
      client.appIconBadgesApi,
    ]) {
      api.configuration.configuration.basePath = base;
    }
    clients.set(known, client);
  }
  return clients.get(known);
}

async function run({ base, secret, method, args }) {
  const client = clientFor(base, secret);
  const names = method.split(".");
  const name = names.pop();
  const owner = names.reduce((place, part) => place[part], client);
  try {
    return { value: await owner[name](...args) };
  } catch (error) {
    if (!error.response) return { thrown: String(error) };
    return {
      status: error.response.status,
      headers: Object.fromEntries(error.response.headers),
      body: await error.response.json(),
    };
  }
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(JSON.stringify(await run(JSON.parse(line))) + "\n");
  }
})();
