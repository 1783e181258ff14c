// A page that is open while the server is killed and comes back shows what is true then.
import { assert, done, pool, restart, server, signIn } from "./lib.mjs";

await pool("before");
const page = await signIn();
await page.getByRole("link", { name: "before" }).waitFor();
await page.evaluate(() => { window.isTheSamePage = true; });
await restart();
await pool("after");
await page.getByRole("link", { name: "after" }).waitFor();
assert(await page.evaluate(() => window.isTheSamePage), "without a reload");
assert.equal(await page.locator("#connection:visible").count(), 0);
assert.equal(page.url(), `${server}/pools`);

// What is being typed stays, whatever is changed meanwhile.
await page.goto(`${server}/pools/new`);
await page.fill("#name", "half a na");
await pool("meanwhile");
await page.waitForTimeout(1000);
assert.equal(await page.inputValue("#name"), "half a na");
await done();
