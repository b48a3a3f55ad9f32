// ActivitySmith's Node client of today.
'use strict';
const ActivitySmith = require('activitysmith');

const ready = JSON.parse(process.env.APNS_LIVE_READY);
const client = new ActivitySmith({ apiKey: ready.keys.activitysmith });
const cards = client.liveActivities;
cards.api.configuration.configuration.basePath = `${ready.url}/api`;

const share = (value) => ({ title: 'Mirror', type: 'progress', value, upper_limit: 9 });
const host = (value) => ({
  content_state: { title: 'Host', type: 'metrics', metrics: [{ label: 'CPU', value, unit: '%' }] },
});

(async () => {
  const begun = await cards.start({ content_state: share(3), target: { channels: ['demo'] } });
  const activity_id = begun.activity_id || begun.activityId;
  await cards.update({ activity_id, content_state: share(6) });
  await cards.endLiveActivity({
    liveActivityEndRequest: {
      activity_id,
      content_state: { ...share(9), auto_dismiss_minutes: 60 },
    },
  });
  await cards.stream('host-1', host(9));
  await cards.stream('host-1', host(76));
  await cards.endStream('host-2').catch(() => undefined);
})();
