// Shows times in the reader's zone, and keeps their distances up to date.
"use strict";
(() => {
  const units = [[31536000, "year"], [2592000, "month"], [86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

  function distance(at) {
    const seconds = Math.floor(Math.abs(Date.now() - at) / 1000);
    if (seconds < 5) return "now";
    const [size, unit] = units.find(([size]) => seconds >= size);
    const count = Math.floor(seconds / size);
    const text = `${count} ${unit}${count === 1 ? "" : "s"}`;
    return at < Date.now() ? `${text} ago` : `in ${text}`;
  }

  function refine() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const text = distance(at.getTime());
      if (time.textContent !== text) time.textContent = text;
      const title = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
      if (time.title !== title) time.title = title;
    }
  }

  refine();
  setInterval(refine, 5000);
  document.addEventListener("live", refine);
})();
