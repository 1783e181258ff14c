// Keeps the parts of a page that are marked with data-live (and an id) up to date: when the
// server says that something was changed, the page is fetched again and the difference applied,
// so that focus, scroll position, selection and open forms stay. A page that cannot be fetched
// again names another one with the same parts in data-source.
"use strict";
(() => {
  const RETRY = 2000;
  // Some things change with the time alone: an agent goes offline without saying so.
  const PERIOD = 10000;
  const topics = document.body.dataset.topics.split(" ").filter(Boolean);
  const address = "/events?" + topics.map((topic) => "topic=" + encodeURIComponent(topic)).join("&");
  const notice = document.getElementById("connection");
  let source = null;
  let retry = 0;
  let was_lost = false;
  let fetching = false;
  let again = false;

  function connect() {
    clearTimeout(retry);
    if (document.hidden) return;
    source?.close();
    source = new EventSource(address);
    source.addEventListener("open", () => {
      // What was changed before it listened.
      refresh();
      was_lost = false;
      notice.hidden = true;
    });
    source.addEventListener("change", refresh);
    source.addEventListener("error", () => {
      source.close();
      // The second failure in a row is worth a word.
      notice.hidden = !was_lost;
      was_lost = true;
      retry = setTimeout(connect, RETRY);
    });
  }

  async function refresh() {
    if (fetching) { again = true; return; }
    fetching = true;
    try {
      const source = document.querySelector("[data-source]")?.dataset.source;
      const answer = await fetch(source ?? location.href, { headers: { accept: "text/html" } });
      // Somebody ended the session, or deleted the thing.
      if (answer.redirected || answer.status === 404) { location.reload(); return; }
      if (answer.ok) apply(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      // The next event or period tries again.
    } finally {
      fetching = false;
    }
    if (again) { again = false; refresh(); }
  }

  function apply(page) {
    const style = (html) => html.querySelector("link[rel=stylesheet]")?.getAttribute("href");
    // Another version of the server: its parts need its stylesheet and scripts.
    if (style(page) !== style(document)) { location.reload(); return; }
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(part.id);
      if (fresh) morph(part, fresh);
    }
    document.dispatchEvent(new CustomEvent("live"));
  }

  // Makes `node` what `fresh` is, and keeps what need not change.
  function morph(node, fresh) {
    if (node.isEqualNode(fresh) || is_in_use(node)) return;
    if (node.nodeType !== Node.ELEMENT_NODE) { node.data = fresh.data; return; }
    for (const { name } of [...node.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") node.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (node.getAttribute(name) !== value && name !== "open") node.setAttribute(name, value);
    }
    if (node.hasAttribute("data-keep")) return;
    let next = node.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const known = wanted.id && [...node.children].find((child) => child.id === wanted.id);
      if (known) {
        if (known === next) next = next.nextSibling;
        else node.insertBefore(known, next);
        morph(known, wanted);
      } else if (next && !next.id && !wanted.id && next.nodeName === wanted.nodeName) {
        const same = next;
        next = next.nextSibling;
        morph(same, wanted);
      } else {
        node.insertBefore(document.importNode(wanted, true), next);
      }
    }
    while (next) {
      const gone = next;
      next = next.nextSibling;
      gone.remove();
    }
  }

  function is_in_use(node) {
    const focused = document.activeElement;
    return node.nodeName === "FORM" && node.contains(focused) && focused.nodeName !== "BUTTON";
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { source?.close(); clearTimeout(retry); } else connect();
  });
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  setInterval(() => { if (!document.hidden) refresh(); }, PERIOD);
  connect();
})();
