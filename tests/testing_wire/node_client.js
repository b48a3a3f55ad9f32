// Device pushes, channel management and a broadcast with @parse/node-apn, unchanged.
// Reads one JSON object from its first argument; prints one with what came back.
'use strict';
const options = JSON.parse(process.argv[2]);
const apn = require(options.module);

async function main() {
  const provider = new apn.Provider({
    token: { key: options.key_file, keyId: options.key_id, teamId: options.team_id },
    ca: [options.ca_file],
    address: 'localhost',
    port: options.port,
    manageChannelsAddress: 'localhost',
    manageChannelsPort: options.manage_port,
  });
  const found = {};

  const alert = new apn.Notification();
  alert.topic = options.bundle_id;
  alert.pushType = 'alert';
  alert.expiry = Math.floor(Date.now() / 1000) + 3600;
  alert.alert = 'Kick-off';
  alert.payload = { game: 7 };
  found.alert = await provider.send(alert, options.tokens);

  const update = new apn.Notification();
  update.topic = options.bundle_id + '.push-type.liveactivity';
  update.pushType = 'liveactivity';
  update.priority = 5;
  update.timestamp = Math.floor(Date.now() / 1000);
  update.event = 'update';
  update.contentState = { home: 71, away: 68 };
  found.update = await provider.send(update, [...options.tokens, 'nonsense']);

  const create = new apn.Notification();
  create.payload = { 'message-storage-policy': 1 };
  found.create = await provider.manageChannels(create, options.bundle_id, 'create');
  const channel = found.create.sent[0]['apns-channel-id'];

  const read = new apn.Notification();
  read.channelId = channel;
  found.read = await provider.manageChannels(read, options.bundle_id, 'read');
  found.list = await provider.manageChannels(new apn.Notification(), options.bundle_id, 'readAll');

  const cast = new apn.Notification();
  cast.channelId = channel;
  cast.pushType = 'liveactivity';
  cast.priority = 10;
  cast.expiry = 0;
  cast.timestamp = Math.floor(Date.now() / 1000);
  cast.event = 'update';
  cast.contentState = { home: 72, away: 68 };
  found.broadcast = await provider.broadcast(cast, options.bundle_id);

  const remove = new apn.Notification();
  remove.channelId = channel;
  found.remove = await provider.manageChannels(remove, options.bundle_id, 'delete');
  const again = new apn.Notification();
  again.channelId = channel;
  found.again = await provider.manageChannels(again, options.bundle_id, 'delete');

  await provider.shutdown();
  process.stdout.write(JSON.stringify({ channel, ...found }));
}

main().catch(error => {
  process.stderr.write(String(error && error.stack));
  process.exit(1);
});
