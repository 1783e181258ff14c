// The same pages as forms and links alone.
import { assert, done, register, server, signIn, workspace } from "./lib.mjs";

const page = await signIn({ javaScriptEnabled: false });
await page.getByRole("link", { name: "Create the first pool" }).click();
await page.fill("#name", "plain");
await page.getByRole("button", { name: "Create pool" }).click();
await page.waitForURL(/\/pools\/apool-/);
const pool = page.url();

await page.getByRole("link", { name: "Register an agent" }).first().click();
await page.fill("#name", "one");
await page.fill("#memory", "much");
await page.getByRole("button", { name: "Show the commands" }).click();
assert.match(await page.textContent(".wrong"), /A number of MB/);
await page.fill("#memory", "1024");
await page.getByRole("button", { name: "Show the commands" }).click();
assert.match(await page.textContent("#steps"), /--agent-name one --memory 1024/);
await page.getByRole("button", { name: "Create the token" }).click();
assert.equal((await register(await page.textContent("#token"), "one")).status, 201);
await page.getByRole("link", { name: "Look again" }).click();
assert.match(await page.textContent("#arrival"), /one registered/);
assert.equal(await page.locator("[data-copy]:visible").count(), 0, "no button without its script");

const main = await workspace("network");
await page.goto(pool);
await page.getByLabel("Link a workspace").selectOption(main.id);
await page.getByRole("button", { name: "Link", exact: true }).click();
await page.getByRole("button", { name: "Unlink network" }).click();
await page.getByRole("link", { name: "New token" }).click();
await page.fill("#name", "spare");
await page.getByRole("button", { name: "Create token" }).click();
assert.match(await page.textContent("#new-token"), /^at-/);
await page.getByRole("link", { name: "Done" }).click();
await page.getByRole("link", { name: /Revoke spare/ }).click();
await page.getByRole("button", { name: "Revoke the token" }).click();
assert.match(await page.textContent(".flash"), /Revoked/);
await page.goto(`${pool}/delete`);
await page.getByRole("button", { name: "Delete plain" }).click();
await page.waitForURL(`${server}/pools`);
await page.goto(`${server}/account`);
await page.getByRole("button", { name: "Sign out" }).click();
await page.waitForURL(`${server}/sign-in`);
await page.goto(pool);
assert.match(page.url(), /sign-in\?next=/);
await done();
