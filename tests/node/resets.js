// Connects many times at once; each is answered once, and then resets. `node resets.js PORT CLIENTS`
const net = require('node:net');

const [port, clients] = process.argv.slice(2).map(Number);
let reset = 0;
for (let number = 0; number < clients; number++) {
  const client = net.createConnection({ port, host: '127.0.0.1' }, () => client.write('hello'));
  client.once('data', () => client.resetAndDestroy());
  client.on('close', () => {
    reset += 1;
    if (reset === clients) console.log(`${reset} reset`);
  });
}
