// Shows what a form leads to while it is filled in: the element whose id is in data-preview is
// taken from the answer to the form as it stands.
"use strict";
(() => {
  const form = document.querySelector("form[data-preview]");
  if (!form) return;
  const target = document.getElementById(form.dataset.preview);
  let timer = 0;
  let count = 0;

  async function show() {
    const own = ++count;
    const body = new URLSearchParams(new FormData(form));
    const answer = await fetch(location.pathname, { method: "POST", body });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById(target.id);
    // A later one is on its way, or the session has ended.
    if (own !== count || !fresh) return;
    target.replaceChildren(...fresh.childNodes);
  }

  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => show().catch(() => {}), 150);
  });
})();
