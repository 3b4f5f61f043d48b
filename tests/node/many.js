// Connects many times in a row, says a word each time, and waits for the answer and the end.
// `node many.js PORT TIMES PREFIX`
const net = require('node:net');

const [port, times, prefix] = process.argv.slice(2);

function once(word) {
  return new Promise((resolve, reject) => {
    let answer = '';
    const client = net.createConnection({ port: Number(port), host: '127.0.0.1' }, () => client.end(word));
    client.setEncoding('utf8');
    client.on('data', (piece) => (answer += piece));
    client.on('error', reject);
    client.on('end', () => (answer === prefix + word ? resolve() : reject(new Error(`answered ${answer}`))));
  });
}

async function main() {
  for (let number = 0; number < Number(times); number++) {
    await once(`안녕 ${number}`);
  }
  console.log(`${times} answered`);
}

main();
