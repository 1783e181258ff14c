// A run from its start to its apply: its log as it grows, its search, its lines, the approval.
import { agent, api, assert, configuration, done, pool, planned, poolToken, register, server, signIn, work, workspace } from "./lib.mjs";

const made = await pool("production");
const { session_token: session } = await register(await poolToken(made.id), "build-1");
const { id } = await workspace("network");
await api("PATCH", `/workspaces/${id}`, {
  attributes: {}, relationships: { "agent-pool": { data: { type: "agent-pools", id: made.id } } },
});
await configuration(id);

const page = await signIn();
await page.goto(`${server}/workspaces`);
await page.getByRole("link", { name: "network" }).click();
await page.waitForURL(`${server}/workspaces/${id}`);
await page.getByText("Start a run", { exact: true }).click();
await page.fill("#message", "Open port 443");
await page.getByRole("button", { name: "Start the run" }).click();
await page.waitForURL(/\/runs\/run-/);
const address = page.url().split(/[?#]/)[0];

const plan = await work(session);
await plan.write("\u001b[1mTerraform\u001b[0m used the \u001b[31mselected\u001b[0m providers\n");
// Follows without a reload, with colours and without what a run writes to harm a reader.
const text = page.locator(".log-lines");
await text.getByText("used the selected providers").waitFor();
assert.equal(await text.locator("span", { hasText: /^selected$/ }).evaluate((at) => getComputedStyle(at).color === getComputedStyle(at.parentElement).color), false);
const lines = Array.from({ length: 3000 }, (_, number) => `line ${number + 2} <img src=x onerror=alert(1)>\n`).join("");
await plan.write(lines);
await text.getByText("line 3001 <img").waitFor();
assert.equal(await page.locator(".log-lines img").count(), 0);

// A line that somebody shares, and a text that somebody looks for.
await page.goto(`${address}?phase=plan#L1500`);
await text.getByText("line 1500 <img").waitFor();
await page.fill("#log-search", "line 2777 ");
await page.keyboard.press("Enter");
await text.getByText("line 2777 <img").waitFor();

await plan.planJson(planned.json);
await plan.finish("finished", true, planned.summary);
const summary = page.locator(".plan-summary");
await summary.getByText("2 to add").waitFor();
assert.match(await summary.innerText(), /2 to add, 1 to change, 2 to destroy\s+1 of them replaced. 1 output to change/);
await summary.getByText("module.db.terraform_data.size").click();
await summary.getByText("input: 4 → 5").waitFor();
assert.doesNotMatch(await summary.innerHTML(), /hunter/);
await summary.getByText("terraform_data.one").click();
await summary.getByText("a <img src=x onerror=alert(1)>").waitFor();
// What somebody has opened stays open when the page follows a change.
await api("POST", `/runs/${address.split("/").pop()}/comments`, { attributes: { body: "a look" } });
await page.locator("#history").getByText("a look").waitFor();
assert(await summary.getByText("input: 4 → 5").isVisible());
await page.waitForFunction(() => document.title.startsWith("Needs approval · network"));
assert.match(await page.getAttribute("link[rel=icon]", "href"), /state-waiting/);
await page.getByLabel("The plan needs approval").fill("looks right <script>alert(1)</script>");
await page.getByRole("button", { name: "Approve and apply" }).click();
const apply = await work(session);
await apply.write("Apply complete!\n");
await apply.finish("finished");
await page.goto(`${address}?phase=apply`);
await page.getByText("Apply complete!").waitFor();
await page.getByText("looks right <script>").waitFor();
assert.match(await page.locator("#run .heading").innerText(), /Applied/i);
const [run] = await api("GET", `/runs?filter[workspace]=${id}`);
assert.equal(run.attributes.status, "applied");

// The link that Terraform prints.
await page.goto(`${server}/app/default/network/runs/${run.id}`);
await page.waitForURL(address);

// Again, and canceled, each with a comment.
await page.getByText("Run again", { exact: true }).first().click();
await page.fill("#retry-comment", "Once more <b>");
await page.locator("#retry button").click();
await page.getByRole("heading", { name: "Once more <b>" }).waitFor();
await page.getByText("Cancel run", { exact: true }).first().click();
await page.fill("#cancel-comment", "Not today <b>");
await page.locator("#cancel button").click();
await page.locator("#history blockquote", { hasText: "Not today <b>" }).waitFor();

// The same for somebody without scripts.
const plain = await signIn({ javaScriptEnabled: false });
await plain.goto(`${address}?phase=plan`);
await plain.getByText("line 3001 <img").waitFor();
await plain.getByRole("link", { name: "Earlier lines" }).click();
await plain.goto(`${server}/runs`);
await plain.getByRole("link", { name: /network/ }).first().waitFor();
await agent(session, "deregister", {});
await done();
