// Sends the archive that was chosen, then the form with the configuration that it became.
"use strict";
(() => {
  const form = document.querySelector("[data-upload]");
  const archive = form?.querySelector("[data-archive]");
  const problem = form?.querySelector("[data-upload-error]");
  const button = form?.querySelector("button");

  form?.addEventListener("submit", async (event) => {
    if (!archive || archive.files.length === 0 || form.elements["configuration-version"]) return;
    event.preventDefault();
    problem.hidden = true;
    button.disabled = true;
    try {
      const answer = await fetch(form.dataset.upload, {
        method: "POST",
        headers: { "x-form-token": form.elements["form-token"].value },
        body: archive.files[0],
      });
      if (!answer.ok) throw new Error(await answer.text());
      const id = document.createElement("input");
      id.type = "hidden";
      id.name = "configuration-version";
      id.value = await answer.text();
      form.append(id);
      // The server has it.
      archive.disabled = true;
      form.submit();
    } catch (error) {
      problem.textContent = error.message || "The archive could not be sent.";
      problem.hidden = false;
      button.disabled = false;
    }
  });
})();
