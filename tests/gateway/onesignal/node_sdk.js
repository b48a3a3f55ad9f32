// Makes the calls given on stdin with OneSignal's Node SDK, and prints what each came to.
const sdk = require(process.env.ONESIGNAL_SDK);

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const { url, key, calls } = JSON.parse(Buffer.concat(chunks).toString());
  const api = new sdk.DefaultApi(
    sdk.createConfiguration({ baseServer: new sdk.ServerConfiguration(url, {}), restApiKey: key }),
  );
  const results = [];
  for (const { method, parts, kind, body } of calls) {
    const given = kind ? [Object.assign(new sdk[kind](), body)] : [];
    try {
      results.push({ value: await api[method](...parts, ...given) });
    } catch (error) {
      if (!(error instanceof sdk.ApiException)) throw error;
      results.push({
        status: error.code,
        errors: error.errorMessages,
        retryAfter: error.headers && error.headers['retry-after'],
      });
    }
  }
  process.stdout.write(JSON.stringify(results));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
