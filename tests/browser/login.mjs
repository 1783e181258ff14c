// `terraform login`: the browser takes the code to the program on its own computer, past the
// page's content security policy.
import { createServer } from "node:http";
import { assert, done, server, signIn } from "./lib.mjs";

const program = createServer((request, answer) => answer.end(`got ${request.url}`));
await new Promise((resolve) => program.listen(0, "localhost", resolve));
const redirect = `http://localhost:${program.address().port}/login`;
const consent = `${server}/oauth/authorize?${new URLSearchParams({
  client_id: "terraform-cli",
  response_type: "code",
  redirect_uri: redirect,
  code_challenge_method: "S256",
  code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
  state: "as it was",
})}`;

const page = await (await signIn()).context().newPage();
page.setDefaultTimeout(15000);
await page.goto(consent);
await page.getByText(`localhost:${program.address().port}`).waitFor();
assert.match(await page.inputValue("#token-name"), /^terraform login on /);
await page.getByRole("button", { name: "Allow" }).click();
await page.waitForURL(`${redirect}?**`);
const answer = new URL(page.url()).searchParams;
assert.match(answer.get("code"), /^code-/);
assert.equal(answer.get("state"), "as it was");

await page.goto(consent);
await page.getByRole("button", { name: "Deny" }).click();
await page.getByText("No token was made.").waitFor();
assert(page.url().startsWith(server));
program.close();
await done();
