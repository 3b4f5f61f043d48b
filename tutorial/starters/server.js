// Answers each line with "서버 응답: " and that line.  node server.js [HOST:PORT [LIMIT [SECONDS]]]
const net = require('node:net');

const [address = '127.0.0.1:8080', limit = '64', seconds = '30'] = process.argv.slice(2);
const PREFIX = Buffer.from('서버 응답: ');
const NEWLINE = '\n'.charCodeAt(0);
const clients = new Map(); // each socket, and whether it is in the middle of a line
let stopping = false;

// allowHalfOpen: a client that has ended its half still gets its answer.
const server = net.createServer({ allowHalfOpen: true }, (socket) => {
  // Without this listener the first reset would end the whole process.
  socket.on('error', () => socket.destroy());
  if (stopping || clients.size >= Number(limit)) {
    return leave(socket, 'busy: try again later\n');
  }
  clients.set(socket, false);
  socket.on('close', () => clients.delete(socket));

  let held = []; // the pieces of a line that is not complete yet: bytes, for half a character is no text
  let deadline;
  const arm = () => {
    clearTimeout(deadline);
    deadline = setTimeout(() => socket.destroy(), Number(seconds) * 1000);
  };
  arm();
  socket.on('close', () => clearTimeout(deadline));

  socket.on('data', (piece) => {
    const answers = [];
    let start = 0;
    for (let end; (end = piece.indexOf(NEWLINE, start)) >= 0; start = end + 1) {
      answers.push(PREFIX, ...held, piece.subarray(start, end + 1));
      held = [];
    }
    // A line that begins has a deadline of its own; the bytes that follow do not put it off.
    if (answers.length > 0 || held.length === 0) arm();
    if (start < piece.length) held.push(piece.subarray(start));
    clients.set(socket, held.length > 0);

    // A client that reads slowly is not read from until it has caught up: or memory would fill.
    if (answers.length > 0 && !socket.write(Buffer.concat(answers))) {
      socket.pause();
      socket.once('drain', () => {
        arm();
        socket.resume();
      });
    }
    if (stopping && held.length === 0) leave(socket);
  });

  socket.on('end', () => {
    if (held.length > 0) socket.write(Buffer.concat([PREFIX, ...held])); // the last line may lack its newline
    socket.end();
  });
});

// Says the last words, reads what is still coming, and does not wait for ever. To close with unread input would be
// a reset, and a reset destroys what was said.
function leave(socket, words = '') {
  socket.end(words);
  socket.resume();
  const patience = setTimeout(() => socket.destroy(), 1000);
  socket.on('close', () => clearTimeout(patience));
}

const at = address.lastIndexOf(':');
server.listen({ host: address.slice(0, at), port: Number(address.slice(at + 1)), backlog: 1024 }, () => {
  console.log(`listening on ${server.address().address}:${server.address().port}`);
});

process.once('SIGINT', () => {
  stopping = true;
  server.close();
  // What has already arrived is read first; whoever is in the middle of a line may end it.
  setImmediate(() => {
    for (const [socket, inALine] of clients) if (!inALine) leave(socket);
  });
});
