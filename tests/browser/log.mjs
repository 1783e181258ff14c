// A log of 200,000 lines with colours: it opens at its end, grows, is scrolled, searched and linked.
import { api, assert, beat, configuration, done, pool, poolToken, register, server, signIn, work, workspace } from "./lib.mjs";

const LINES = 200_000;
// A debug build reads the whole log for the first page and for each search.
const PATIENCE = 60_000;

const made = await pool("production");
const { session_token: session } = await register(await poolToken(made.id), "build-1");
const { id } = await workspace("network");
await api("PATCH", `/workspaces/${id}`, {
  attributes: {}, relationships: { "agent-pool": { data: { type: "agent-pools", id: made.id } } },
});
await configuration(id);
const run = await api("POST", "/runs", {
  attributes: {}, relationships: { workspace: { data: { type: "workspaces", id } } },
});
const plan = await work(session);
beat(session, plan);
const line = (n) => `\u001b[${31 + (n % 7)}mline ${n}\u001b[0m aws_instance.web[${n}]: \u001b[1mStill creating...\u001b[22m <img src=x onerror=alert(1)>\n`;
for (let from = 1; from <= LINES; from += 5000) {
  await plan.write(Array.from({ length: 5000 }, (_, n) => line(from + n)).join(""));
}

// It opens at its end; the index of its lines, which the first reader makes, is there then.
const page = await signIn({ reducedMotion: "reduce", timezoneId: "Asia/Kolkata" });
const address = `${server}/runs/${run.id}?phase=plan`;
await page.goto(`${server}/pools`);
const first = await opened();
const again = Math.min(await opened(), await opened(), await opened());
assert.equal(await page.locator(".log-lines img").count(), 0);
assert((await page.locator(".log-line").count()) < 5000, "only a part of the log is in the page");

// It follows.
const follows = [];
for (let n = 1; n <= 3; n += 1) {
  const shown = page.locator(`#L${LINES + n}`).waitFor();
  await plan.write(`\u001b[32mfresh ${n}\u001b[0m\n`);
  const written = Date.now();
  await shown;
  follows.push(Date.now() - written);
  await inView(LINES + n);
}
assert.equal(await page.locator(`#L${LINES + 1} .fg2`).textContent(), "fresh 1");

// It says when a line came, in the reader's zone, to those who want to know.
const time = page.locator(`#L${LINES + 1} .log-time`);
assert(!(await time.isVisible()));
await page.check("[data-log-times]");
const part = await page.evaluate(
  (first) => fetch(`${location.pathname}/log?phase=plan&first=${first}&count=1`).then((answer) => answer.json()),
  LINES + 1,
);
assert(Math.abs(part.times[0] - Date.now()) < 600_000, "it came just now");
const offset = 5.5 * 60 * 60 * 1000;
assert.equal(await time.textContent(), new Date(part.times[0] + offset).toISOString().slice(11, 19));
await opened();
assert(await page.locator(".log-time").last().isVisible(), "the choice is kept");
await page.uncheck("[data-log-times]");
assert(!(await page.locator(".log-time").last().isVisible()));

// It scrolls anywhere.
await page.evaluate(() => { document.querySelector("[data-log-lines]").scrollTop = 0; });
await inView(1);
assert(!(await page.isChecked("[data-log-follow]")), "scrolling up stops following");
await page.evaluate(() => {
  const view = document.querySelector("[data-log-lines]");
  view.scrollTop = view.scrollHeight / 2;
});
await page.waitForFunction(() => {
  const view = document.querySelector("[data-log-lines]").getBoundingClientRect();
  const at = document.elementFromPoint(view.left + 200, view.top + view.height / 2);
  return /^line (9\d{4}|1\d{5}) /.test(at?.closest(".log-line")?.lastElementChild.textContent ?? "");
});

// A text is found, in spite of the colours in it.
const asked = Date.now();
await page.fill("[data-log-search]", "LINE 123456 AWS");
await page.locator("#L123456.is-current").waitFor({ timeout: PATIENCE });
const searched = Date.now() - asked;
await inView(123456);
assert.equal(await page.textContent("[data-log-matches]"), "1 of 1");
await page.fill("[data-log-search]", "no such text");
await page.getByText("No matches").waitFor({ timeout: PATIENCE });

// A line that somebody shares.
const other = await page.context().newPage();
await other.goto(`${address}#L150000`);
await other.locator("#L150000.is-selected").waitFor();
await inView(150000, other);

console.log(`${LINES} lines: open in ${first} ms at first and in ${again} ms from then on; a new line shows after ${follows.join(", ")} ms; a search takes ${searched} ms`);
await done();

async function opened() {
  const begun = Date.now();
  await page.goto(address);
  await inView(LINES);
  return Date.now() - begun;
}

async function inView(number, of = page) {
  await of.waitForFunction((id) => {
    const view = document.querySelector("[data-log-lines]").getBoundingClientRect();
    const box = document.getElementById(id)?.getBoundingClientRect();
    return box && box.top >= view.top - 1 && box.bottom <= view.bottom + 1;
  }, `L${number}`, { timeout: PATIENCE });
}
