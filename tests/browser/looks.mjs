// Every page, light and dark, on a desk and on a phone: valid, accessible, light, and within its
// width. With UPDATE_SCREENSHOTS=1 it also writes pictures and a list of them into docs/pages.
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  agent, api, assert, axe, configuration, delivered, done, link, modules, planned, pool, poolToken, receiver, register, samples, server, signIn,
  webhook, work, workspace,
} from "./lib.mjs";

const MOST = 150_000;
const { HtmlValidate } = modules("html-validate");
const validator = new HtmlValidate({ extends: ["html-validate:standard"] });
const folder = fileURLToPath(new URL("../../docs/pages", import.meta.url));
const pictures = process.env.UPDATE_SCREENSHOTS === "1";
const names = [];
if (pictures) {
  mkdirSync(folder, { recursive: true });
  for (const file of readdirSync(folder)) rmSync(`${folder}/${file}`);
}

// A colour that is still changing has no contrast yet.
const page = await signIn({ reducedMotion: "reduce" });
const session = page.context();
// Makes small pictures of large ones.
const painter = await session.newPage();
await look("pools-empty", "/pools");
await look("webhooks-empty", "/webhooks");
await look("hooks-empty", "/hooks");

const made = await pool("production");
await pool("sandbox");
const secret = await poolToken(made.id);
const agents = {};
for (const name of ["build-1", "build-2", "build-3", "build-4"]) agents[name] = await register(secret, name);
const message = "cannot use the engine: unix:///run/scalr-docker.sock does not answer";
await agent(agents["build-3"].session_token, "heartbeat", { status: "errored", error_message: message, tasks: [] });
await agent(agents["build-4"].session_token, "deregister", {});
const workspaces = {};
for (const name of ["network", "cluster"]) {
  const { id } = await workspace(name);
  workspaces[name] = id;
  const related = { "agent-pool": { data: { type: "agent-pools", id: made.id } } };
  await api("PATCH", `/workspaces/${id}`, { attributes: {}, relationships: related });
}
await workspace("dns");
const network = workspaces.network;
await api("POST", "/vars", {
  attributes: { key: "region", value: "eu-central-1", category: "terraform" },
  relationships: { workspace: { data: { type: "workspaces", id: network } } },
});
const url = await receiver([[200, ""], [503, "The chat is closed for maintenance.\nTry again in an hour."]]);
const hook = await webhook({
  name: "chat", url, "secret-key": "one of its own",
  headers: [{ name: "Authorization", value: "Bearer x", sensitive: true }, { name: "X-Team", value: "platform" }],
}, ["run:needs_attention", "run:errored"]);
await webhook({ name: "pager", url: "https://pager.example.com/", enabled: false }, ["run:errored"]);
await api("PATCH", `/agent-pools/${made.id}`, { attributes: { "webhook-url": "https://starter.example.com/start" } });
await configuration(network);
const started = await api("POST", "/runs", {
  attributes: { message: "Open port 443" },
  relationships: { workspace: { data: { type: "workspaces", id: network } } },
});
const plan = await work(agents["build-1"].session_token);
await plan.write(`\u001b[1mTerraform will perform the following actions:\u001b[0m

  # terraform_data.one will be created
\u001b[32m  +\u001b[0m resource "terraform_data" "one" {
\u001b[32m      +\u001b[0m id = \u001b[90m(known after apply)\u001b[0m
    }

\u001b[1mPlan:\u001b[0m 1 to add, 0 to change, 0 to destroy.
`);
await plan.planJson(planned.json);
await plan.finish("finished", true, planned.summary);
for (const serial of [1, 2]) {
  const resources = [{ mode: "managed", type: "terraform_data", name: "port", instances: [{ attributes: { id: "443" } }] }].slice(0, serial - 1);
  const state = { version: 4, serial, lineage: "network", outputs: {}, resources };
  await api("POST", "/state-versions", {
    attributes: { state: Buffer.from(JSON.stringify(state)).toString("base64") },
    relationships: { workspace: { data: { type: "workspaces", id: network } } },
  });
}
const earlier = (await api("GET", `/state-versions?filter[workspace]=${network}`)).at(-1);
const all = await api("GET", "/agents");
const id = (name) => all.find((one) => one.attributes.name === name).id;
const [token] = await api("GET", `/agent-pools/${made.id}/access-tokens`);

const canceled = await api("POST", "/runs", {
  attributes: { message: "Try something", "plan-only": true },
  relationships: { workspace: { data: { type: "workspaces", id: network } } },
});
await api("POST", `/runs/${canceled.id}/actions/cancel`);
await delivered(2);
// Not in the pictures: a port that is another one each time.
await api("PATCH", `/webhook-integrations/${hook.id}`, { attributes: { url: "https://chat.example.com/hook" } });
samples(made.id);

const [environment] = await api("GET", "/environments");
const script = await api("POST", "/hooks", {
  attributes: {
    name: "policy", interpreter: "sh", description: "Refuses plans that destroy a database",
    script: "set -eu\nterraform show -json /scalr/run/plan >/tmp/plan.json\n./policy /tmp/plan.json\n",
  },
});
await api("POST", "/hooks", { attributes: { name: "notify", interpreter: "python3", script: "print('done')\n" } });
const linked = await api("POST", "/hook-environment-links", {
  attributes: { events: ["post-plan", "pre-apply"] },
  relationships: {
    hook: { data: { type: "hooks", id: script.id } },
    environment: { data: { type: "environments", id: environment.id } },
  },
});
const tag = await api("POST", "/tags", { attributes: { name: "prod" } });
await api("POST", `/workspaces/${network}/relationships/tags`, [{ type: "tags", id: tag.id }]);
const inherited = await api("POST", "/vars", {
  attributes: { key: "region", value: "eu-west-1", category: "terraform", description: "Where most of it runs" },
  relationships: { environment: { data: { type: "environments", id: environment.id } } },
});
await api("POST", "/vars", {
  attributes: { key: "instance_size", value: "large", category: "terraform" },
  relationships: {
    environment: { data: { type: "environments", id: environment.id } },
    tag: { data: { type: "tags", id: tag.id } },
  },
});
await look("pools", "/pools");
await look("pool", `/pools/${made.id}`);
await look("pool-new", "/pools/new");
await look("pool-edit", `/pools/${made.id}/edit`);
await look("pool-delete", `/pools/${made.id}/delete`);
await look("agent", `/agents/${id("build-1")}`);
await look("agent-errored", `/agents/${id("build-3")}`);
await look("agent-remove", `/agents/${id("build-4")}/remove`);
await look("environments", "/environments");
await look("environment-new", "/environments/new");
await look("environment-delete", `/environments/${environment.id}/delete`);
await look("environment-variables", `/environments/${environment.id}/variables`);
await look("variable-delete", `/environments/${environment.id}/variables/${inherited.id}/delete`);
await look("workspaces", "/workspaces");
await look("workspace-new", "/workspaces/new");
await look("workspace-delete", `/workspaces/${network}/delete`);
await look("workspace", `/workspaces/${network}`);
await look("workspace-variables", `/workspaces/${network}/variables`);
await look("workspace-settings", `/workspaces/${network}/settings`);
await look("workspace-states", `/workspaces/${network}/states`);
await look("workspace-rollback", `/workspaces/${network}/states/${earlier.id}/rollback`);
await look("runs", "/runs");
await look("run", `/runs/${started.id}`);
await look("register", `/pools/${made.id}/register`);
await look("token-new", `/pools/${made.id}/tokens/new`);
await look("token-revoke", `/pools/${made.id}/tokens/${token.id}/revoke`);
await look("account", "/account");
await look("account-variables", "/account/variables");
await look("webhooks", "/webhooks");
await look("webhook", `/webhooks/${hook.id}`);
await look("webhook-new", "/webhooks/new");
await look("webhook-edit", `/webhooks/${hook.id}/edit`);
await look("webhook-delete", `/webhooks/${hook.id}/delete`);
await look("hooks", "/hooks");
await look("hook", `/hooks/${script.id}`);
await look("hook-new", "/hooks/new");
await look("hook-edit", `/hooks/${script.id}/edit`);
await look("hook-delete", `/hooks/${script.id}/delete`);
await look("hook-link", `/hooks/${script.id}/links/${linked.id}`);
await look("api-reference", "/api-reference");
await look("api-calls", "/api-reference/workspaces");
await look("login-consent", `/oauth/authorize?${new URLSearchParams({
  client_id: "terraform-cli",
  response_type: "code",
  redirect_uri: "http://localhost:10000/login",
  code_challenge_method: "S256",
  code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
})}`);
await look("not-found", "/nothing");
await look("registration", `/pools/${made.id}/register`, async () => {
  await page.getByRole("button", { name: "Create the token" }).click();
  await page.locator("#token").waitFor();
});
await session.clearCookies();
await look("sign-in", "/sign-in");
await look("sign-in-link", new URL(link).pathname);
if (pictures) list();
await done();

async function look(name, path, then = async () => {}) {
  const weights = [];
  const weigh = (answer) => {
    if (answer.url().includes("/events")) return;
    weights.push(answer.body().then((body) => body.length, () => 0));
  };
  page.on("response", weigh);
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.emulateMedia({ colorScheme: "light" });
  await page.goto(server + path);
  await then();
  page.off("response", weigh);
  const weight = (await Promise.all(weights)).reduce((all, one) => all + one, 0);
  assert(weight > 0 && weight < MOST, `${name} weighs ${weight} bytes`);
  assert.match(await page.title(), / · Agent pools$/);
  names.push(name);
  await validate(name);
  // Not as an element of the page: its policy allows no such script.
  await page.evaluate(readFileSync(axe, "utf8"));
  await check(name, "light");
  await picture(`${name}-light`);
  await page.emulateMedia({ colorScheme: "dark" });
  // All else is as it was.
  await check(name, "dark", ["color-contrast"]);
  await picture(`${name}-dark`);
  await page.setViewportSize({ width: 360, height: 740 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert(wide <= 360, `${name} is ${wide} pixels wide on a phone`);
  await picture(`${name}-phone-dark`);
  await page.emulateMedia({ colorScheme: "light" });
  await picture(`${name}-phone-light`);
}

async function picture(name) {
  if (!pictures) return;
  const png = await page.screenshot({ fullPage: true });
  const webp = await painter.evaluate(async ([png, quality]) => {
    const answer = await fetch(`data:image/png;base64,${png}`);
    const image = await createImageBitmap(await answer.blob());
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/webp", quality).split(",")[1];
  }, [png.toString("base64"), 0.6]);
  writeFileSync(`${folder}/${name}.webp`, Buffer.from(webp, "base64"));
}

/** The pictures, for people who look at the folder. */
function list() {
  const rows = names.map((name) => {
    const links = ["light", "dark", "phone-light", "phone-dark"].map((kind) => `[${kind}](${name}-${kind}.webp)`);
    return `| ${name} | ${links.join(" ")} |`;
  });
  const text = `# Pictures of all pages

\`UPDATE_SCREENSHOTS=1\` makes the browser test \`every_page\` write them.

| page | pictures |
|---|---|
${rows.join("\n")}
`;
  writeFileSync(`${folder}/README.md`, text);
}

/** Checks the HTML as the server sends it. */
async function validate(name) {
  const answer = await session.request.get(page.url(), { failOnStatusCode: false });
  const { results } = await validator.validateString(await answer.text());
  const said = results.flatMap((one) => one.messages.map((at) => `${at.line}: ${at.ruleId}: ${at.message}`));
  assert.deepEqual(said, [], `${name} is not valid HTML`);
}

async function check(name, scheme, rules) {
  const { violations } = await page.evaluate((rules) => window.axe.run(rules ? { runOnly: rules } : {}), rules);
  const bad = violations.filter((one) => ["serious", "critical"].includes(one.impact));
  const said = bad.map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html + " " + (node.any[0]?.message ?? "")).join("\n  ")}`);
  assert.deepEqual(said, [], `${name}, ${scheme}`);
}
