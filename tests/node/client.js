// A client of the documents' shape: once it is connected it says hello, it prints the first answer, and then
// it ends. `node client.js PORT [HOST]`, or a path in place of the port.
const net = require('node:net');

const [target, host] = process.argv.slice(2);
const where = /^\d+$/.test(target) ? { port: Number(target), host } : { path: target };

const client = net.createConnection(where, () => client.write('안녕하세요, 서버님!'));
client.once('data', (answer) => {
  console.log(`data ${answer}`);
  client.end();
});
client.on('end', () => console.log('end'));
client.on('close', () => console.log('close'));
client.on('error', (error) => {
  console.log(`error ${error.code}`);
  process.exitCode = 1;
});
