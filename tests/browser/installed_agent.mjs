// From the link of the server's first start to the deletion of a pool, with a real agent: the
// commands that the page shows are run on a machine as they are.
import { api, archive, ask, assert, done, link, open, server } from "./lib.mjs";

const image = process.env.IMAGE;
const page = await open();
page.setDefaultTimeout(60000);
await page.goto(link);
await page.getByRole("button", { name: "Sign in" }).click();

await page.getByRole("link", { name: "Create the first pool" }).click();
await page.fill("#name", "production");
await page.getByRole("button", { name: "Create pool" }).click();
await page.waitForURL(/\/pools\/apool-/);
const pool = page.url();

await page.getByRole("link", { name: "Register an agent" }).first().click();
await page.fill("#name", "build-1");
await page.fill("#concurrency", "2");
await page.getByRole("button", { name: "Create the token" }).click();
const token = await page.textContent("#token");
const steps = await page.locator('[id^="step-"]').allTextContents();
for (const step of steps) await shell(step, token);
await page.locator("#arrival", { hasText: "registered with version" }).waitFor();
await page.goto(pool);
await page.locator("#agents-list", { hasText: "build-1" }).locator(".status", { hasText: "idle" }).waitFor();
await ask("image");

await page.getByRole("link", { name: "Workspaces" }).click();
await page.getByRole("link", { name: "Create the first workspace" }).click();
await page.fill("#name", "network");
await page.getByRole("button", { name: "Create workspace" }).click();
await page.waitForURL(/\/workspaces\/ws-/);
const id = page.url().split("/").pop();
await page.goto(pool);
await page.getByLabel("Link a workspace").selectOption(id);
await page.getByRole("button", { name: "Link", exact: true }).click();
await page.locator("#workspaces-list th", { hasText: "network" }).waitFor();
await page.goto(`${server}/workspaces/${id}/settings`);
await page.getByLabel("Image of its runs").fill(image);
await page.getByRole("button", { name: "Save settings" }).click();
await page.locator(".flash").waitFor();

await page.goto(`${server}/workspaces/${id}`);
await page.getByText("Start a run", { exact: true }).click();
await page.fill("#message", "From the page");
await page.setInputFiles("#archive", {
  name: "hello.tar.gz",
  mimeType: "application/gzip",
  buffer: archive('output "greeting" {\n  value = "hello from the page"\n}'),
});
await page.getByRole("button", { name: "Start the run" }).click();
await page.waitForURL(/\/runs\/run-/);
const run = page.url().split(/[?#]/)[0];
await page.locator(".log-lines").getByText("hello from the page").first().waitFor();
await page.getByLabel("The plan needs approval").fill("as planned");
await page.getByRole("button", { name: "Approve and apply" }).click();
await page.goto(`${run}?phase=apply`);
await page.locator(".log-lines").getByText("Apply complete!").waitFor();
await page.locator("#run .heading", { hasText: /Applied/i }).waitFor();
await page.getByText("as planned").waitFor();
const [state] = await api("GET", `/state-versions?filter[workspace]=${id}`);
assert.equal(state.attributes.serial, 1);

await page.goto(pool);
await page.getByRole("button", { name: "Unlink network" }).click();
await page.locator(".flash", { hasText: "Unlinked" }).waitFor();
await shell("systemctl stop scalr-agent", "");
await page.locator("#agents-list .status", { hasText: "offline" }).waitFor();
await page.getByRole("link", { name: "Remove build-1" }).click();
await page.getByRole("button", { name: "Remove build-1" }).click();
await page.locator("#agents-list", { hasText: "No agents yet" }).waitFor();
await page.goto(`${pool}/delete`);
await page.getByRole("button", { name: "Delete production" }).click();
await page.waitForURL(`${server}/pools`);
await page.goto(`${server}/workspaces/${id}/settings`);
await page.getByRole("link", { name: "Delete network" }).click();
await page.getByText("1 state version").waitFor();
await page.getByRole("button", { name: "Delete network" }).click();
await page.getByText("No workspaces yet").waitFor();
await done();

/** Runs a command on the machine; `input` is what a person pastes when it asks. */
async function shell(command, input) {
  await ask(JSON.stringify({ command, input }));
}
