// Whatever people can write into names, messages and addresses stays text.
import {
  agent, api, assert, configuration, delivered, done, poolToken, receiver, register, server, signIn, webhook,
} from "./lib.mjs";

const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)>'"{{ 7 * 7 }}`;
const headers = [{ name: "X-Text", value: evil }];
const made = await api("POST", "/agent-pools", {
  attributes: { name: evil, "webhook-url": `https://starter.example.com/${evil}`, "webhook-headers": headers },
});
const environment = await api("POST", "/environments", { attributes: { name: evil } });
const main = await api("POST", "/workspaces", {
  attributes: { name: "main" },
  relationships: {
    environment: { data: { type: "environments", id: environment.id } },
    "agent-pool": { data: { type: "agent-pools", id: made.id } },
  },
});
const tag = await api("POST", "/tags", { attributes: { name: evil } });
await api("POST", `/workspaces/${main.id}/relationships/tags`, [{ type: "tags", id: tag.id }]);
await api("POST", `/environments/${environment.id}/relationships/tags`, [{ type: "tags", id: tag.id }]);
const variable = await api("POST", "/vars", {
  attributes: { key: "evil", value: `</textarea>${evil}`, description: evil, category: "terraform" },
  relationships: {
    environment: { data: { type: "environments", id: environment.id } },
    tag: { data: { type: "tags", id: tag.id } },
  },
});
// The error of a delivery is what somebody else answers.
const url = `${await receiver([[500, evil]])}/${evil}`;
const hook = await webhook({ name: evil, url, headers }, ["run:errored"]);
const script = await api("POST", "/hooks", {
  attributes: { name: evil, description: evil, interpreter: "sh", script: `</textarea></code>${evil}` },
});
const link = await api("POST", "/hook-environment-links", {
  attributes: { events: ["pre-plan"] },
  relationships: {
    hook: { data: { type: "hooks", id: script.id } },
    environment: { data: { type: "environments", id: environment.id } },
  },
});
await configuration(main.id);
const run = await api("POST", "/runs", {
  attributes: { message: evil }, relationships: { workspace: { data: { type: "workspaces", id: main.id } } },
});
await api("POST", `/runs/${run.id}/actions/cancel`);
await delivered(1);
const secret = await poolToken(made.id);
const registered = await register(secret, "one", { version: evil, os: evil, driver: evil, platform: evil });
assert.equal(registered.status, 201);
await agent(registered.session_token, "heartbeat", { status: "errored", error_message: evil, tasks: [] });
await api("POST", `/agent-pools/${made.id}/access-tokens`, { attributes: { name: evil } });
const [one] = await api("GET", "/agents");
const tokens = await api("GET", `/agent-pools/${made.id}/access-tokens`);

const page = await signIn();
const below = encodeURIComponent(evil);
const paths = [
  "/pools", `/pools/${made.id}`, `/pools/${made.id}/edit`, `/pools/${made.id}/delete`,
  `/pools/${made.id}/register`, `/pools/${made.id}/tokens/new`, `/agents/${one.id}`,
  `/agents/${one.id}/remove`, "/webhooks", `/webhooks/${hook.id}`, `/webhooks/${hook.id}/edit`,
  `/webhooks/${hook.id}/delete`, `/webhooks/${below}`, "/hooks", `/hooks/${script.id}`,
  `/hooks/${script.id}/edit`, `/hooks/${script.id}/delete`, `/hooks/${script.id}/links/${link.id}`, `/runs/${run.id}`, `/pools/${below}`, `/agents/${below}`, `/${below}`,
  `/environments/${environment.id}`, `/environments/${environment.id}/variables`,
  `/environments/${environment.id}/variables/${variable.id}/delete`, `/workspaces/${main.id}/settings`,
  `/workspaces/${main.id}/variables`, "/account/variables",
  ...tokens.map((token) => `/pools/${made.id}/tokens/${token.id}/revoke`),
];
for (const path of paths) {
  await page.goto(server + path);
  await page.waitForTimeout(50);
  assert.equal(await page.locator("img").count(), 0, path);
  assert.equal(await page.locator("main script, title script").count(), 0, path);
}
await page.goto(`${server}/pools`);
assert((await page.textContent("#pools")).includes("{{ 7 * 7 }}"), "a text is no template");

await page.goto(`${server}/webhooks/${hook.id}`);
assert((await page.textContent(".remark")).includes(evil), "the error of a delivery is shown as it is");

// What a form refuses comes back as text, too, and so does what is typed.
await page.goto(`${server}/pools/${made.id}/register`);
await page.fill("#concurrency", evil);
await page.fill("#name", evil);
await page.locator("#steps pre", { hasText: "alert" }).first().waitFor();
await page.getByRole("button", { name: "Create the token" }).click();
await page.locator(".wrong").first().waitFor();
assert.equal(await page.inputValue("#name"), evil);
await page.goto(`${server}/pools/new`);
await page.fill("#name", "another");
await page.fill("#image", evil);
await page.getByRole("button", { name: "Create pool" }).click();
await page.locator(".wrong").waitFor();
assert.equal(await page.inputValue("#image"), evil);
await page.goto(`${server}/webhooks/new`);
await page.fill("#name", evil);
await page.fill("#url", evil);
await page.getByLabel("Name of header 1").fill(evil);
await page.getByRole("button", { name: "Create webhook" }).click();
await page.locator(".wrong").waitFor();
assert.equal(await page.inputValue("#url"), evil);

// A sign-in leads nowhere else, and another site's form does nothing.
await page.goto("about:blank");
await page.context().clearCookies();
await page.goto(`${server}/sign-in?next=${encodeURIComponent("//evil.example/")}`);
await page.fill("#token", process.env.TOKEN);
await page.click("main button.primary");
await page.waitForURL(`${server}/pools`);
const forged = await page.request.post(`${server}/pools/${made.id}/delete`, {
  form: { "form-token": "0".repeat(64) },
});
assert.equal(forged.status(), 403);
await done();
