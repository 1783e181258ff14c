// Shortcuts of the keyboard; the dialog that ? opens lists them.
"use strict";
(() => {
  // How long the second key may take.
  const PATIENCE = 1500;
  const places = { p: "/pools", w: "/workspaces", r: "/runs" };
  const dialog = document.getElementById("keys");
  let is_going = false;
  let forget = 0;

  function search() {
    const field = document.querySelector("main input[type=search]");
    field?.focus();
    field?.select();
    return Boolean(field);
  }

  // Whether it did something.
  function act(key) {
    if (is_going) {
      is_going = false;
      if (places[key]) location.assign(places[key]);
      return key in places;
    }
    if (key === "g") {
      is_going = true;
      clearTimeout(forget);
      forget = setTimeout(() => { is_going = false; }, PATIENCE);
      return true;
    }
    if (key === "/") return search();
    if (key === "?") dialog.showModal();
    return key === "?";
  }

  document.addEventListener("keydown", (event) => {
    const is_typed = event.target.closest("input:not([type=checkbox], [type=radio]), select, textarea");
    if (is_typed || dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
    if (act(event.key)) event.preventDefault();
  });
  document.querySelector("[data-keys]").addEventListener("click", () => dialog.showModal());
})();
