// Whatever people can write into names, images, messages and addresses stays text.
import { api, assert, done, poolToken, register, server, signIn, agent } from "./lib.mjs";

const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)>'"{{ 7 * 7 }}`;
const made = await api("POST", "/agent-pools", { attributes: { name: evil, image: evil } });
const environment = await api("POST", "/environments", { attributes: { name: evil } });
await api("POST", "/workspaces", {
  attributes: { name: "main" },
  relationships: {
    environment: { data: { type: "environments", id: environment.id } },
    "agent-pool": { data: { type: "agent-pools", id: made.id } },
  },
});
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
  `/agents/${one.id}/remove`, `/pools/${below}`, `/agents/${below}`, `/${below}`,
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

// What a form refuses comes back as text, too, and so does what is typed.
await page.goto(`${server}/pools/${made.id}/register`);
await page.fill("#concurrency", evil);
await page.fill("#name", evil);
await page.locator("#steps pre", { hasText: "alert" }).first().waitFor();
await page.getByRole("button", { name: "Create the token" }).click();
await page.locator(".wrong").first().waitFor();
assert.equal(await page.inputValue("#name"), evil);
await page.goto(`${server}/pools/new`);
await page.fill("#name", evil);
await page.getByRole("button", { name: "Create pool" }).click();
await page.locator(".wrong").waitFor();

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
