// A pool is created and an agent's command shown without a mouse.
import { assert, done, open, server, token } from "./lib.mjs";

const page = await open();
await page.goto(server);
await page.keyboard.type(token);
await page.keyboard.press("Enter");
await page.waitForURL(`${server}/pools`);

// The list of shortcuts, and what is on it.
await page.keyboard.press("?");
await page.getByRole("heading", { name: "Keyboard shortcuts" }).waitFor();
await page.keyboard.press("Escape");
await page.getByRole("heading", { name: "Keyboard shortcuts" }).waitFor({ state: "hidden" });
await page.keyboard.press("g");
await page.keyboard.press("w");
await page.waitForURL(`${server}/workspaces`);
await page.keyboard.press("/");
assert.equal(await focused("id"), "q");
// What is typed is text, and no shortcut.
await page.keyboard.type("gp?");
assert.equal(await focused("value"), "gp?");
await page.goto(`${server}/pools`);

await page.keyboard.press("Tab");
assert.equal(await focused("textContent"), "Skip to content");
await page.keyboard.press("Enter");
await tabTo("Create the first pool");
await page.keyboard.press("Enter");
await page.waitForURL(`${server}/pools/new`);
await page.keyboard.type("by hand");
await page.keyboard.press("Enter");
await page.waitForURL(/\/pools\/apool-/);
await tabTo("Register an agent");
await page.keyboard.press("Enter");
await page.waitForURL(/register$/);
// The choice of the way is one stop; the arrows move in it.
while ((await focused("name")) !== "way") await page.keyboard.press("Tab");
await page.keyboard.press("ArrowRight");
await page.keyboard.press("ArrowRight");
await page.locator("#steps pre", { hasText: "docker build" }).waitFor();
await tabTo("Create the token");
const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
assert.notEqual(outline, "none", "what has the focus shows it");
await page.keyboard.press("Enter");
await page.locator("#token").waitFor();
await done();

function focused(property) {
  return page.evaluate((property) => document.activeElement[property], property);
}

async function tabTo(text) {
  for (let stops = 0; stops < 60; stops++) {
    await page.keyboard.press("Tab");
    if ((await focused("textContent")).trim() === text) return;
  }
  assert.fail(`nothing with the text ${text} can be reached with Tab`);
}
