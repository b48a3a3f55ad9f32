// OneSignal's Node client of today.
'use strict';
const sdk = require('@onesignal/node-onesignal');

const ready = JSON.parse(process.env.APNS_LIVE_READY);
const app = ready.onesignal_app_id;
const api = new sdk.DefaultApi(
  sdk.createConfiguration({
    baseServer: new sdk.ServerConfiguration(ready.url, {}),
    restApiKey: ready.keys.onesignal,
  }),
);
const made = (kind, body) => Object.assign(new sdk[kind](), body);
const start = (activity, target) =>
  made('StartLiveActivityRequest', {
    name: 'Final',
    event: 'start',
    activity_id: activity,
    event_attributes: { ground: 'Hall 3' },
    event_updates: { home: 0, away: 0 },
    contents: { en: 'It begins', de: 'Es beginnt' },
    headings: { en: 'Kick-off', de: 'Anpfiff' },
    ...target,
  });
const change = (event, home, more) =>
  made('UpdateLiveActivityRequest', {
    name: 'Final',
    event,
    event_updates: { home, away: 0 },
    ...more,
  });

(async () => {
  await api.startLiveActivity(
    app,
    'DemoAttributes',
    start('match-1', { included_segments: ['everyone'] }),
  );
  await api.startLiveActivity(
    app,
    'DemoAttributes',
    start('match-2', {
      filters: [{ field: 'language', relation: '!=', value: 'xx' }],
    }),
  );
  await api.updateLiveActivity(
    app,
    'match-1',
    change('update', 1, { headings: { en: 'Goal' }, contents: { en: '1:0' } }),
  );
  await api.updateLiveActivity(app, 'match-2', change('end', 3, { dismissal_date: 4102444800 }));
  await api.updateLiveActivity(app, 'match-9', change('update', 1)).catch(() => undefined);
})();
