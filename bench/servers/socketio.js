// Socket.IO: a room for each topic, WebSocket only, compression off, no state of each room's adapter kept.
// socketio.js WS_PORT CONTROL_PORT
"use strict";
const net = require("net");
const http = require("http");
const { Server } = require("socket.io");
const topics = require("./topics.js");

const web = http.createServer();
const io = new Server(web, { transports: ["websocket"], perMessageDeflate: false, httpCompression: false, serveClient: false });

io.use((socket, next) => next(topics.known(socket.handshake.query.token) ? undefined : new Error("not known here")));

io.on("connection", (socket) => {
  let current = new Set();
  socket.on("groups", (message) => {
    const wanted = topics.wanted(message);
    for (const name of current) if (!wanted.has(name)) socket.leave(name);
    for (const name of wanted) if (!current.has(name)) socket.join(name);
    current = wanted;
    socket.emit("groups", { groups_current: [...wanted] });
  });
});

web.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
topics.listen(net, Number(process.argv[3]), (name, text) => io.to(name).emit("event", JSON.parse(text)));
