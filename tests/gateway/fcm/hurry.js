// Preloaded with --require: the SDK's waits between two tries take a hundredth of their time.
const { setTimeout: wait } = global;
global.setTimeout = (call, delay, ...given) => wait(call, delay / 100, ...given);
