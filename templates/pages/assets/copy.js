// The buttons that copy a text: data-copy has the id of the element with it.
"use strict";
(() => {
  document.documentElement.classList.add("scripted");

  async function copy(element) {
    const text = element.textContent;
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    // Browsers have no clipboard for pages over plain HTTP.
    getSelection().selectAllChildren(element);
    document.execCommand("copy");
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const label = button.querySelector("span");
    const before = button.dataset.label ??= label.textContent;
    try {
      await copy(document.getElementById(button.dataset.copy));
      label.textContent = "Copied";
    } catch {
      label.textContent = "Select and copy it by hand";
    }
    clearTimeout(button.timer);
    button.timer = setTimeout(() => { label.textContent = before; }, 2000);
  });
})();
