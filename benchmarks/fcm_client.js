// Two callers of one gateway in one process: firebase-admin's sendEach, and plain POSTs of the native API
// over one HTTP/2 connection. Reads a JSON line for each round, and prints what it took.
const http2 = require('http2');
const readline = require('readline');
const admin = process.env.FIREBASE_ADMIN;
const { initializeApp, cert } = require(`${admin}/lib/app`);
const { getMessaging } = require(`${admin}/lib/messaging`);
const STREAMS = 64; // firebase-admin has 100 open; an app has 96 places for calls that write

let messaging;

async function sendEach({ messages }) {
  const batch = await messaging.sendEach(messages);
  const failed = batch.responses.find((one) => one.error);
  if (failed) throw failed.error;
  return batch.successCount;
}

function native({ url, key, calls }) {
  return new Promise((resolve, reject) => {
    const session = http2.connect(url, { servername: 'localhost' });
    session.on('error', reject);
    let next = 0;
    let done = 0;
    const one = () => {
      if (next === calls.length) return;
      const { path, body } = calls[next++];
      const stream = session.request({
        ':method': 'POST', ':path': path, 'authorization': `Bearer ${key}`, 'content-type': 'application/json',
      });
      let status = 0;
      const parts = [];
      stream.on('response', (headers) => { status = headers[':status']; });
      stream.on('data', (part) => parts.push(part));
      stream.on('error', reject);
      stream.on('end', () => {
        const said = JSON.parse(Buffer.concat(parts).toString());
        if (status !== 202) reject(new Error(`${status} ${JSON.stringify(said)}`));
        done += 1;
        if (done === calls.length) session.close(() => resolve(done));
        else one();
      });
      stream.end(JSON.stringify(body));
    };
    for (let n = 0; n < Math.min(STREAMS, calls.length); n += 1) one();
  });
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    if (asked.account) {
      initializeApp({ credential: cert(asked.account) });
      messaging = getMessaging();
      continue;
    }
    const before = process.cpuUsage();
    const begun = process.hrtime.bigint();
    const count = await (asked.messages ? sendEach(asked) : native(asked));
    const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
    const { user, system } = process.cpuUsage(before);
    console.log(JSON.stringify({ count, seconds, cpu: (user + system) / 1e6 }));
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
