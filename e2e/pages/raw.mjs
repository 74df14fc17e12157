// Requests as no browser sends them.

import { Agent, request } from "node:http";
import { connect } from "node:net";

const agent = new Agent({ keepAlive: true, maxSockets: 8 });
const ANSWER_MAX_MS = 60_000;

/** After so long without a word, no more is to come for what deserves no answer. */
const QUIET_MS = 2_000;

/** Sends one request and returns status, headers and body. A switch of protocols counts as an answer of its own. */
export function ask(port, { method, path, headers, body = "" }) {
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port, method, path, headers, agent, setHost: false, timeout: ANSWER_MAX_MS });
    asked.once("response", (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.once("end", () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString() }));
      response.once("error", reject);
    });
    asked.once("upgrade", (response, socket) => {
      socket.destroy();
      resolve({ status: response.statusCode, headers: response.headers, body: "" });
    });
    asked.once("timeout", () => asked.destroy(new Error(`no answer to ${method} ${path}`)));
    asked.once("error", reject);
    asked.end(body);
  });
}

/** Sends bytes and returns all that comes until the other end closes or says no more. */
export function send(port, bytes, quietMs = QUIET_MS) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    const socket = connect(port, "127.0.0.1", () => socket.write(bytes));
    const finish = () => {
      socket.destroy();
      resolve(Buffer.concat(chunks).toString("latin1"));
    };
    socket.setTimeout(quietMs, finish);
    socket.on("data", (chunk) => chunks.push(chunk));
    socket.once("end", finish);
    socket.once("error", (error) => (error.code === "ECONNRESET" ? finish() : reject(error)));
  });
}

export const closeConnections = () => agent.destroy();
