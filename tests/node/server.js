// A server of the documents' shape: it answers every piece with the prefix and the piece. It listens on a free
// port of every address, and says which.
const net = require('node:net');

const server = net.createServer((socket) => {
  socket.on('data', (piece) => socket.write('서버 응답: ' + piece));
  socket.on('error', (error) => console.error(error.code));
});
server.listen(0, () => console.log(`listening on localhost:${server.address().port}`));
