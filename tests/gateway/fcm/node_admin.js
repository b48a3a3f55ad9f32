// Sends the messages given on stdin with firebase-admin for Node, and prints what each came to.
const admin = process.env.FIREBASE_ADMIN;
const { initializeApp, cert } = require(`${admin}/lib/app`);
const { getMessaging } = require(`${admin}/lib/messaging`);

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const { account, one, many } = JSON.parse(Buffer.concat(chunks).toString());
  initializeApp({ credential: cert(account) });
  const messaging = getMessaging();
  const said = { one: [], many: [] };
  for (const message of one) {
    try {
      said.one.push({ name: await messaging.send(message) });
    } catch (error) {
      said.one.push({ code: error.code, message: error.message });
    }
  }
  if (many.length) {
    const batch = await messaging.sendEach(many);
    said.many = batch.responses.map((one) => one.messageId || { code: one.error.code });
  }
  process.stdout.write(JSON.stringify(said));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
