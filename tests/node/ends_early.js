// Ends its half at once, and counts what still comes. `node ends_early.js PORT`
const net = require('node:net');

let count = 0;
const client = net.createConnection({ port: Number(process.argv[2]), host: '127.0.0.1' }, () => client.end());
client.on('data', (piece) => (count += piece.length));
client.on('end', () => console.log(`end after ${count}`));
client.on('error', (error) => console.log(`error ${error.code} after ${count}`));
