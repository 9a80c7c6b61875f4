// The package ws as its manual says to broadcast: send() to each client. Speaks Tower's protocol. Compression is off;
// with "deflate" it is on for clients that offer it: no context takeover, and no bound below which nothing is compressed.
// ws.js WS_PORT CONTROL_PORT [deflate]
"use strict";
const net = require("net");
const { WebSocketServer, WebSocket } = require("ws");
const topics = require("./topics.js");

const members = new Map();

function leave(socket, name) {
  const those = members.get(name);
  those.delete(socket);
  if (!those.size) members.delete(name);
}

function join(socket, name) {
  if (!members.has(name)) members.set(name, new Set());
  members.get(name).add(socket);
}

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  backlog: 4096,
  perMessageDeflate: process.argv[4] === "deflate" && { serverNoContextTakeover: true, threshold: 0 },
  maxPayload: 65536,
  verifyClient: ({ req }) => topics.known(new URL(req.url, "http://x").searchParams.get("token")),
});

server.on("connection", (socket) => {
  let current = new Set();
  socket.send('{"accept":true,"user":1}');
  socket.on("message", (data) => {
    const wanted = topics.wanted(JSON.parse(data));
    for (const name of current) if (!wanted.has(name)) leave(socket, name);
    for (const name of wanted) if (!current.has(name)) join(socket, name);
    current = wanted;
    socket.send(JSON.stringify({ groups_current: [...wanted] }));
  });
  socket.on("close", () => current.forEach((name) => leave(socket, name)));
  socket.on("error", () => socket.terminate());
});

topics.listen(net, Number(process.argv[3]), (name, text) => {
  for (const socket of members.get(name) ?? []) if (socket.readyState === WebSocket.OPEN) socket.send(text);
});
