// What both of Node's servers use: Tower's groups, the token, and the port on which events come in.
"use strict";
const { timingSafeEqual } = require("crypto");

const token = Buffer.from(process.env.BENCH_TOKEN);

exports.known = (shown) => {
  const given = Buffer.from(shown ?? "");
  return given.length === token.length && timingSafeEqual(given, token);
};

exports.wanted = ({ groups }) => {
  const names = Object.entries(groups).flatMap(([group, types]) => types.map((type) => `${group}-${type}`));
  return new Set(names);
};

// Each line is a topic and a text.
exports.listen = (net, port, publish) => {
  const server = net.createServer((publisher) => {
    let rest = "";
    publisher.setEncoding("utf8");
    publisher.on("data", (data) => {
      const lines = (rest + data).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const end = line.indexOf(" ");
        publish(line.slice(0, end), line.slice(end + 1));
      }
    });
    publisher.on("error", () => publisher.destroy());
  });
  server.listen(port, "127.0.0.1");
};
