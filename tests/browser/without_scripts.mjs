// The same pages as forms and links alone.
import { archive, assert, done, register, server, signIn, workspace } from "./lib.mjs";

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

// A run of an archive, and what is wrong with another one.
const upload = async (buffer) => {
  await page.goto(`${server}/workspaces/${main.id}`);
  await page.getByText("Start a run", { exact: true }).click();
  await page.fill("#message", "From a form");
  await page.setInputFiles("#archive", { name: "it.tar.gz", mimeType: "application/gzip", buffer });
  await page.getByRole("button", { name: "Start the run" }).click();
};
await upload(Buffer.from("no archive"));
assert.match(await page.textContent("main"), /archive/);
await upload(archive());
await page.waitForURL(/\/runs\/run-/);
await page.getByRole("heading", { name: "From a form" }).waitFor();
await page.getByText("Cancel run", { exact: true }).first().click();
await page.locator("#cancel button").click();
await page.getByText("Canceled").first().waitFor();
// Without an archive it is the last one again.
await page.goto(`${server}/workspaces/${main.id}`);
await page.getByText("Start a run", { exact: true }).click();
await page.getByRole("button", { name: "Start the run" }).click();
await page.waitForURL(/\/runs\/run-/);
await page.getByText("Cancel run", { exact: true }).first().click();
await page.locator("#cancel button").click();
await page.goto(pool);
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
// A webhook, from the account's page to its deletion.
await page.goto(`${server}/account`);
await page.getByRole("link", { name: "Webhooks" }).click();
await page.getByRole("link", { name: "Create the first webhook" }).click();
await page.fill("#name", "chat");
await page.fill("#url", "http://chat.example.com/hook");
await page.getByLabel(/run:errored/).check();
await page.fill("#secret-key", "a secret");
await page.getByRole("button", { name: "Create webhook" }).click();
assert.match(await page.textContent(".wrong"), /https/);
await page.fill("#url", "https://chat.example.com/hook");
await page.getByRole("button", { name: "Create webhook" }).click();
assert.match(page.url(), /webhooks\/new$/, "a key that was typed is asked for again");
await page.fill("#secret-key", "a secret");
await page.getByRole("button", { name: "Create webhook" }).click();
await page.getByRole("heading", { name: "Nothing was delivered yet" }).waitFor();
assert.match(await page.textContent(".facts"), /with a secret key/);
await page.getByRole("link", { name: "Delete" }).click();
await page.getByRole("button", { name: "Delete chat" }).click();
await page.getByRole("heading", { name: "No webhooks yet" }).waitFor();
await page.goto(`${server}/account`);
await page.getByRole("button", { name: "Sign out" }).click();
await page.waitForURL(`${server}/sign-in`);
await page.goto(pool);
assert.match(page.url(), /sign-in\?next=/);
await done();
