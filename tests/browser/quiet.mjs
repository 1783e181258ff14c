// A page whose pool changes many times a second fetches itself about once a second.
import { agent, assert, done, pool, poolToken, register, server, signIn } from "./lib.mjs";

const made = await pool("production");
const { session_token: session } = await register(await poolToken(made.id), "build-1");
const page = await signIn();
await page.goto(`${server}/pools/${made.id}`);
await page.locator("#agents-list .status", { hasText: "idle" }).waitFor();
// The first fetch is that of the listener.
await page.waitForTimeout(1500);

let fetches = 0;
page.on("request", (request) => { if (request.url().endsWith(`/pools/${made.id}`)) fetches += 1; });
const end = Date.now() + 4000;
for (let beat = 0; Date.now() < end; beat += 1) {
  const answer = await agent(session, "heartbeat", { status: "errored", error_message: `beat ${beat}`, tasks: [] });
  assert(answer.ok);
  await page.waitForTimeout(40);
}
assert(fetches >= 2 && fetches <= 6, `${fetches} fetches in 4 seconds`);
await page.locator("#agents-list .status", { hasText: "errored" }).waitFor();
await done();
