// From the sign-in link to the deletion of a pool, with two browsers that look at it.
import { execFile } from "node:child_process";
import { chmodSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { agent, assert, done, link, open, register, server, signIn, workspace } from "./lib.mjs";

const page = await open();
await page.goto(link);
await page.reload();
await page.getByRole("button", { name: "Sign in" }).click();
await page.waitForURL(`${server}/pools`);
const again = await open();
await again.goto(link);
assert.match(await again.textContent("h1"), /does not work any more/);
await again.context().close();
const other = await signIn();

// An empty list says what a pool is.
assert.match(await page.textContent("main"), /A pool is a group of agents/);
await page.getByRole("link", { name: "Create the first pool" }).click();
await page.getByLabel("Only these").check();
await page.fill("#name", "production");
await page.getByRole("button", { name: "Create pool" }).click();
assert.match(await page.textContent("fieldset"), /at least one environment/);
await page.getByLabel("All, also those made later").check();
await page.getByRole("button", { name: "Create pool" }).click();
await page.waitForURL(/\/pools\/apool-/);
assert.match(await page.textContent(".flash"), /Created the pool production/);
const pool = page.url();

// The command follows the options while they are typed.
await page.getByRole("link", { name: "Register an agent" }).first().click();
await page.fill("#name", "build 1");
await page.fill("#concurrency", "2");
await page.locator("#steps pre", { hasText: "--agent-name 'build 1' --concurrency 2" }).waitFor();
await page.getByText("Ansible", { exact: true }).click();
await page.locator("#steps pre", { hasText: "scalr_agent_concurrency" }).waitFor();
await page.getByText("RHEL and relatives").click();
await page.getByRole("button", { name: "Create the token" }).click();
const poolToken = await page.textContent("#token");
assert.match(poolToken, /^at-[0-9a-f]+\.[0-9a-f]{64}$/);
await page.locator(".code:has(#step-2) button").click();
const command = await page.evaluate(() => navigator.clipboard.readText());
assert.equal(command, await page.textContent("#step-2"));
await runs(command);

await other.goto(pool);
const begun = Date.now();
const registered = await register(poolToken, "build 1");
assert.equal(registered.status, 201);
await page.locator("#arrival", { hasText: "registered with version 0.1.0" }).waitFor();
await other.locator("#agents-list .status", { hasText: "idle" }).waitFor();
console.log(`both browsers show the agent after ${Date.now() - begun} ms`);
// The token is this agent's own now.
const thief = await register(poolToken, "build 2");
assert.equal(thief.status >= 400 && thief.status < 500, true, "one agent for one token");
assert.equal((await register(poolToken, "build 1")).status, 201, "and it may restart");

const main = await workspace("network");
await other.getByLabel("Link a workspace").selectOption(main.id);
await other.getByRole("button", { name: "Link", exact: true }).click();
await other.locator("#workspaces-list th", { hasText: "network" }).waitFor();
await page.goto(`${pool}/delete`);
assert.match(await page.textContent("main"), /cannot be deleted/);
assert.equal(await page.locator(`main a[href="/workspaces/${main.id}/settings"]`).count(), 1);
await other.getByRole("button", { name: "Unlink network" }).click();
await other.locator(".flash", { hasText: "Unlinked" }).waitFor();

// Drained on its pool's page, resumed on its own; both browsers see it.
await other.getByRole("button", { name: "Drain build 1" }).click();
await other.locator("#agents-list .status", { hasText: "drained" }).waitFor();
await page.goto(pool);
await page.locator("#agents-list .status", { hasText: "drained" }).waitFor();
await other.getByRole("link", { name: "build 1" }).click();
await other.getByRole("button", { name: "Resume build 1" }).click();
await page.locator("#agents-list .status", { hasText: "idle" }).waitFor();
await other.goto(pool);
await page.goto(`${pool}/delete`);

// An agent that is online stays; one that has left is removed.
await other.getByRole("link", { name: "build 1" }).click();
assert.match(await other.textContent("#journal"), /journalctl --unit scalr-agent/);
await agent((await register(poolToken, "build 1")).session_token, "deregister", {});
await other.getByRole("link", { name: "Remove" }).click();
await other.getByRole("button", { name: "Remove build 1" }).click();
await other.locator("#agents-list", { hasText: "No agents yet" }).waitFor();

await page.reload();
assert.match(await page.textContent("main"), /no agents/);
await page.getByRole("button", { name: "Delete production" }).click();
await page.waitForURL(`${server}/pools`);
await other.getByRole("heading", { name: "Not found" }).waitFor();

// Another browser's session can be ended, and sees it at once.
await other.goto(`${server}/pools`);
await page.goto(`${server}/account`);
await page.locator("tr", { hasNotText: "this browser" }).getByRole("button").click();
await page.locator(".flash").waitFor();
await other.waitForURL(/sign-in/);
await done();

/** Runs the command with its own /etc and /root; without packages it gets as far as the program. */
async function runs(command) {
  const folder = mkdtempSync(join(tmpdir(), "browser-"));
  const sudo = join(folder, "sudo");
  writeFileSync(sudo, '#!/bin/sh\nexec "$@"\n');
  chmodSync(sudo, 0o755);
  const script = `set -e
    mkdir ${folder}/up ${folder}/work
    mount -t tmpfs tmpfs ${folder}/up && mkdir ${folder}/up/etc ${folder}/up/work
    mount -t overlay overlay -o lowerdir=/etc,upperdir=${folder}/up/etc,workdir=${folder}/up/work /etc
    mount -t tmpfs tmpfs /root && echo "$POOL_TOKEN" >/root/pool.token
    PATH=${folder}:$PATH
    ${command}`;
  const run = promisify(execFile)("unshare", ["--map-root-user", "--mount", "bash", "-c", script], {
    env: { PATH: process.env.PATH, POOL_TOKEN: poolToken, no_proxy: "*" },
  });
  const { code, stdout, stderr } = await run.catch((error) => error);
  assert.match(stdout, /scalr-server-ca\.pem: OK/, stderr);
  assert.match(stderr, /scalr-agent-setup/, "the script looks for the setup program");
  assert.equal(code, 8, `without packages the download fails, and nothing before it: ${stderr}`);
}
