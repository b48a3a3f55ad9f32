// Preloaded with --require: every TLS connection of this process goes to the gateway, and the
// certificate is still checked for the host that was asked for.
const tls = require('tls');
const connect = tls.connect;
const port = Number(process.env.GATEWAY_PORT);
tls.connect = function (...given) {
  if (typeof given[0] === 'number') {
    given.splice(0, typeof given[1] === 'string' ? 2 : 1, port, 'localhost');
    return connect.apply(this, given);
  }
  const [options, ...rest] = given;
  const servername = options.servername || options.host;
  return connect.call(this, { ...options, host: 'localhost', port, servername }, ...rest);
};
