// The icon and the title of the tab show the state of the run, and a page that follows the latest log goes on
// from the plan's to the apply's.
"use strict";
(() => {
  const run = document.querySelector("[data-state-icon]");
  const icon = document.querySelector("link[rel=icon]");

  function show() {
    if (icon.getAttribute("href") !== run.dataset.stateIcon) {
      icon.setAttribute("href", run.dataset.stateIcon);
    }
    if (document.title !== run.dataset.title) document.title = run.dataset.title;
    const log = document.querySelector("[data-log]");
    if (log && log.dataset.phase !== run.dataset.phase && location.hash === "") {
      location.reload();
    }
  }

  show();
  document.addEventListener("live", show);
})();
