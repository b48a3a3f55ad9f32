// The sender on @parse/node-apn: 1,000 sends at once over its connection.
const fs = require('fs');
const apn = require('@parse/node-apn');
const [port, ca, key, keyId, teamId, topic, count, body] = process.argv.slice(2);
process.env.NODE_EXTRA_CA_CERTS = ca;

async function main() {
  const provider = new apn.Provider({
    token: { key, keyId, teamId }, address: 'localhost', port: Number(port), ca: fs.readFileSync(ca), production: true,
  });
  const payload = JSON.parse(fs.readFileSync(body, 'utf8'));
  const note = new apn.Notification({ aps: payload.aps });
  Object.assign(note, { topic, pushType: 'liveactivity', priority: 10, rawPayload: payload });
  let failed = 0;
  async function run(begin, total) {
    let next = begin;
    const worker = async () => {
      while (next < begin + total) {
        const token = (next++).toString(16).padStart(64, '0');
        const answer = await provider.send(note, token);
        failed += answer.failed.length;
      }
    };
    const start = process.hrtime.bigint();
    await Promise.all(Array.from({ length: 1000 }, worker));
    return Number(process.hrtime.bigint() - start) / 1e9;
  }
  await run(0, Math.min(1000, Number(count)));
  failed = 0;
  const wall = await run(100000, Number(count));
  provider.shutdown();
  console.log(JSON.stringify({ count: Number(count), wall, failed }));
  process.exit(0);
}
main().catch((error) => { console.error(error); process.exit(1); });
