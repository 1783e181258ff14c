// What the scripts of this folder share: a browser, somebody who is signed in, and an agent.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

export { assert };

export const server = process.env.SERVER;
export const token = process.env.TOKEN;
export const link = process.env.LINK;

export const modules = createRequire(`${process.env.SCALR_TEST_BROWSER}/package.json`);
const { chromium } = modules("playwright-core");
export const axe = modules.resolve("axe-core/axe.min.js");

// The server's certificate is its own.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0";
process.removeAllListeners("warning");

export const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the test that started this script do something, and waits until it is done. */
export async function ask(what) {
  process.stdout.write(`${what}\n`);
  await lines.next();
}

/** Kills the server and starts it again. */
export const restart = () => ask("restart");

/** A page of a new browser, and what must never happen in it. */
export async function open(options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  page.setDefaultTimeout(15000);
  page.on("pageerror", (error) => fail(`an error in a script: ${error}`));
  page.on("dialog", (dialog) => fail(`a dialog: ${dialog.message()}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(server)) fail(`a request to another host: ${request.url()}`);
  });
  page.on("console", (message) => {
    if (/content security policy/i.test(message.text())) fail(message.text());
  });
  return page;
}

/** A page of somebody who signed in with the admin's token. */
export async function signIn(options = {}) {
  const page = await open(options);
  await page.goto(`${server}/sign-in`);
  await page.fill("#token", token);
  await page.click("main button.primary");
  await page.waitForURL(`${server}/pools`);
  return page;
}

function fail(text) {
  console.error(text);
  process.exit(1);
}

/** A call of the pool API. */
export async function api(method, path, data) {
  const answer = await fetch(`${server}/api/iacp/v3${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: data && JSON.stringify({ data }),
  });
  assert(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.status === 204 ? null : (await answer.json()).data;
}

/** A workspace in the default environment, linked to nothing. */
export async function workspace(name) {
  const [environment] = await api("GET", "/environments");
  return api("POST", "/workspaces", {
    attributes: { name },
    relationships: { environment: { data: { type: "environments", id: environment.id } } },
  });
}

/** A pool. */
export async function pool(name) {
  return api("POST", "/agent-pools", { attributes: { name } });
}

/** Something that webhooks call, and that answers each time with the next status and text. */
export async function receiver(answers) {
  const calls = createServer((request, response) => {
    const [status, text] = answers.shift() ?? [200, ""];
    request.resume().on("end", () => response.writeHead(status).end(text));
  });
  await new Promise((listens) => calls.listen(0, "localhost", listens));
  calls.unref();
  return `http://localhost:${calls.address().port}`;
}

/** A webhook for what happens to the runs of all environments. */
export async function webhook(attributes, events) {
  const data = events.map((id) => ({ type: "event-definitions", id }));
  return api("POST", "/webhook-integrations", {
    attributes: { "is-shared": true, "max-attempts": 1, ...attributes }, relationships: { events: { data } },
  });
}

/** Waits until `count` calls of webhooks are over. */
export async function delivered(count) {
  for (;;) {
    const all = await api("GET", "/webhook-deliveries");
    if (all.filter((one) => one.attributes.status !== "pending").length >= count) return;
    await new Promise((then) => setTimeout(then, 200));
  }
}

/** Registers an agent, as the program does; status and session. */
export async function register(poolToken, name, more = {}) {
  const body = {
    name, version: "0.1.0", os: "debian_12", driver: "docker", platform: "linux_amd64",
    concurrency: 2, memory: { host_megabytes: 4096, run_megabytes: 512 }, ...more,
  };
  const answer = await agent(poolToken, "register", body);
  return { status: answer.status, ...(await answer.json().catch(() => ({}))) };
}

export function agent(session, call, body) {
  return fetch(`${server}/api/agent/v1/${call}`, {
    method: "POST",
    headers: { authorization: `Bearer ${session}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** A small configuration as a tar.gz. */
export function archive(configuration = 'resource "terraform_data" "one" {}') {
  const folder = mkdtempSync(join(tmpdir(), "configuration-"));
  writeFileSync(join(folder, "main.tf"), `${configuration}\n`);
  const packed = execFileSync("tar", ["--create", "--gzip", "--directory", folder, "."]);
  rmSync(folder, { recursive: true });
  return packed;
}

/** Uploads a small configuration to a workspace. */
export async function configuration(workspaceId) {
  const made = await api("POST", "/configuration-versions", {
    relationships: { workspace: { data: { type: "workspaces", id: workspaceId } } },
  });
  const answer = await fetch(made.links.upload, { method: "PUT", body: archive() });
  assert(answer.ok, `upload: ${answer.status}`);
}

/** The next task of an agent, claimed and started: what the agent writes and how it ends. */
export async function work(session) {
  const polled = await (await agent(session, "poll", { free_slots: 2, tasks: [] })).json();
  const offer = polled.events.find((event) => event.task_id);
  assert(offer, JSON.stringify(polled));
  const attempt = offer.attempt;
  const claimed = await (await agent(session, `tasks/${offer.task_id}/claim`, { attempt })).json();
  const { task_token: secret } = claimed;
  assert((await agent(secret, `tasks/${offer.task_id}/start`, { attempt })).ok);
  let length = 0;
  const hash = createHash("sha256");
  return {
    status: { task_id: offer.task_id, attempt, state: "running" },
    async write(text) {
      const piece = Buffer.from(text);
      const url = `${server}/api/agent/v1/tasks/${offer.task_id}/log?attempt=${attempt}&offset=${length}`;
      const answer = await fetch(url, { method: "PUT", headers: { authorization: `Bearer ${secret}` }, body: piece });
      assert(answer.ok, `log: ${answer.status} ${await answer.clone().text()}`);
      length += piece.length;
      hash.update(piece);
    },
    async planJson(json) {
      const url = `${server}/api/agent/v1/tasks/${offer.task_id}/plan-json?attempt=${attempt}`;
      const headers = { authorization: `Bearer ${secret}` };
      const answer = await fetch(url, { method: "PUT", headers, body: JSON.stringify(json) });
      assert(answer.ok, `plan-json: ${answer.status} ${await answer.clone().text()}`);
    },
    async finish(outcome, hasChanges = null, summary = null) {
      const answer = await agent(secret, `tasks/${offer.task_id}/finish`, {
        attempt, outcome, message: null, exit_code: outcome === "finished" ? 0 : 1, oom_killed: false,
        has_changes: hasChanges, summary, log_bytes: length, log_sha256: hash.digest("hex"),
      });
      assert(answer.ok, `finish: ${answer.status} ${await answer.clone().text()}`);
    },
  };
}

/** Sends heartbeats: without them, another agent gets what takes longer than a lease. */
export function beat(session, task) {
  const heartbeat = { status: "busy", error_message: null, tasks: [task.status] };
  setInterval(() => agent(session, "heartbeat", heartbeat), 5000).unref();
}

/** What Terraform says of a plan that adds, changes, replaces and destroys. */
export const planned = {
  json: {
    format_version: "1.2",
    resource_changes: [
      resource("terraform_data.one", ["create"], null, { input: "a <img src=x onerror=alert(1)>" }, { id: true }),
      resource("module.db.terraform_data.size", ["update"], { input: 4, password: "hunter1" }, { input: 5, password: "hunter2" }),
      resource("terraform_data.again[\"x\"]", ["delete", "create"], { input: 1 }, { input: 2 }),
      resource("terraform_data.gone", ["delete"], { input: "old" }, null),
    ],
    output_changes: { address: { actions: ["create"], before: null, after: "10.0.0.1", after_unknown: false } },
  },
  summary: { additions: 2, changes: 1, destructions: 2, replacements: 1, imports: 0, drifted: 0, output_changes: 1 },
};

function resource(address, actions, before, after, after_unknown = {}) {
  return { address, change: { actions, before, after, after_unknown, before_sensitive: {}, after_sensitive: {} } };
}

/** Samples of a pool as the server takes them each minute, in its database: nobody waits an hour. */
export function samples(poolId) {
  const now = Math.floor(Date.now() / 60000) * 60000;
  const rows = Array.from({ length: 55 }, (_, minute) => {
    const busy = Math.round(2 + 2 * Math.sin(minute / 7));
    const queued = Math.max(0, Math.round(5 * Math.sin(minute / 7 + 0.5)));
    return `('${poolId}', 60000, ${now - (55 - minute) * 60000}, ${queued}, ${busy}, ${minute < 20 ? 4 : 6})`;
  });
  const sql = `INSERT OR REPLACE INTO pool_samples (pool_id, step, at, queued, busy, slots) VALUES ${rows.join()}`;
  const python = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=10); db.execute(sys.argv[2]); db.commit()";
  execFileSync("python3", ["-c", python, join(process.env.DATA, "server.db"), sql]);
}

/** A token of a pool. */
export async function poolToken(id) {
  const made = await api("POST", `/agent-pools/${id}/access-tokens`, { attributes: {} });
  return made.attributes.token;
}

/** Ends the script. */
export async function done() {
  await browser.close();
  process.exit(0);
}
