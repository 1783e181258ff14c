// The log of a run: loads the parts of it that are looked at, follows its end, and finds text.
//
// The lines are in blocks. A block that is far from what is looked at has no lines, only its
// height, so a log of any length can be scrolled.

const BLOCK = 500;

// In the reader's zone.
const clock = new Intl.DateTimeFormat("en", { timeStyle: "medium", hourCycle: "h23" });
const days = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

for (const panel of document.querySelectorAll("[data-log]")) {
  new Log(panel).start();
}

function Log(panel) {
  const view = panel.querySelector("[data-log-lines]");
  const address = panel.dataset.log;
  const phase = panel.dataset.phase;
  const summary = panel.querySelector("[data-log-summary]");
  const following = panel.querySelector("[data-log-follow]");
  const wrapping = panel.querySelector("[data-log-wrap]");
  const timing = panel.querySelector("[data-log-times]");
  const search = panel.querySelector("[data-log-search]");
  const matchSummary = panel.querySelector("[data-log-matches]");

  let total = Number(panel.dataset.total);
  let bytes = Number(panel.dataset.bytes);
  let attempt = Number(panel.dataset.attempt);
  let isLive = panel.dataset.liveLog === "true";
  let lineHeight = 20;
  let selected = null;
  let shownTime = { at: null, text: ">" };
  let matches = [];
  let matchSet = new Set();
  let match = -1;
  const blocks = [];
  const observer = new IntersectionObserver(seen, { root: view, rootMargin: "1500px 0px" });

  this.start = function () {
    panel.classList.add("is-enhanced");
    const rendered = [...view.querySelectorAll(".log-line")];
    if (rendered.length > 0) {
      lineHeight = rendered[0].getBoundingClientRect().height || lineHeight;
    }
    const first = Number(panel.dataset.first);
    view.replaceChildren();
    grow();
    keep(
      first,
      rendered.map((line) => line.lastElementChild.innerHTML),
      rendered.map((line) => Number(line.querySelector(".log-time").dataset.at) || null),
    );
    select();
    if (selected === null && (isLive || !("part" in panel.dataset))) {
      toEnd();
    } else if (selected === null) {
      reveal(first, "start");
    }
    wrapping.checked = localStorage.getItem("log-wrap") === "true";
    wrap();
    timing.checked = localStorage.getItem("log-times") === "true";
    showTimes();
    following.checked = isLive && selected === null;
    timing.addEventListener("change", showTimes);
    wrapping.addEventListener("change", wrap);
    following.addEventListener("change", () => following.checked && toEnd());
    view.addEventListener("scroll", scrolled, { passive: true });
    view.addEventListener("click", clicked);
    window.addEventListener("hashchange", select);
    search.form.addEventListener("submit", (event) => {
      event.preventDefault();
      next(event.submitter && event.submitter.value === "previous" ? -1 : 1);
    });
    let pause;
    search.addEventListener("input", () => {
      clearTimeout(pause);
      pause = setTimeout(find, 150);
    });
    search.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.shiftKey) {
        event.preventDefault();
        next(-1);
      }
    });
    if (search.value !== "") {
      find();
    }
    follow();
  };

  // Blocks and their lines.

  function grow() {
    const count = Math.max(1, Math.ceil(total / BLOCK));
    while (blocks.length > count) {
      const block = blocks.pop();
      observer.unobserve(block.element);
      block.element.remove();
    }
    while (blocks.length < count) {
      const element = document.createElement("div");
      element.className = "log-block";
      element.dataset.block = String(blocks.length);
      view.append(element);
      blocks.push({ element, isLoaded: false, loading: null, isSeen: false });
      observer.observe(element);
    }
    blocks.forEach((block, index) => block.isLoaded || reserve(block, index));
    summary.textContent = total === 1 ? "1 line" : `${total.toLocaleString("en")} lines`;
  }

  function size(index) {
    return Math.min(BLOCK, total - index * BLOCK);
  }

  function reserve(block, index) {
    block.element.style.height = `${Math.max(0, size(index)) * lineHeight}px`;
  }

  function seen(entries) {
    for (const entry of entries) {
      const index = Number(entry.target.dataset.block);
      const block = blocks[index];
      if (!block) {
        continue;
      }
      block.isSeen = entry.isIntersecting;
      if (block.isSeen) {
        load(index);
      } else if (block.isLoaded && index !== blocks.length - 1) {
        block.element.style.height = `${entry.boundingClientRect.height}px`;
        block.element.replaceChildren();
        block.isLoaded = false;
      }
    }
  }

  // Ends when the block's lines are there; for who asks meanwhile, too.
  function load(index) {
    const block = blocks[index];
    if (!block.isLoaded && size(index) > 0) {
      block.loading ??= fetchLines(index).finally(() => {
        block.loading = null;
      });
    }
    return block.loading;
  }

  async function fetchLines(index) {
    let first = index * BLOCK + 1;
    const end = first + size(index);
    const html = [];
    const times = [];
    try {
      while (first < end) {
        const part = await get({ first, count: end - first });
        if (part.html.length === 0) {
          break;
        }
        html.push(...part.html);
        times.push(...part.times);
        first += part.html.length;
      }
      keep(index * BLOCK + 1, html, times);
    } catch {
      // It is loaded when it is looked at again.
    }
  }

  // Shows lines from `first` on in their blocks. A block is loaded with its first line; what
  // would leave a gap is not kept.
  function keep(first, html, times) {
    for (let at = 0; at < html.length; ) {
      const number = first + at;
      const index = Math.floor((number - 1) / BLOCK);
      const place = (number - 1) % BLOCK;
      const count = Math.min(BLOCK - place, html.length - at);
      const block = blocks[index];
      const lines = block && block.element;
      if (block && (block.isLoaded || place === 0) && place <= lines.childElementCount) {
        while (lines.childElementCount > place) {
          lines.lastElementChild.remove();
        }
        lines.insertAdjacentHTML(
          "beforeend",
          html
            .slice(at, at + count)
            .map((text, offset) => line(number + offset, text, times[at + offset]))
            .join(""),
        );
        block.isLoaded = true;
        lines.style.height = "";
      }
      at += count;
    }
    mark();
  }

  // `text` is HTML that the server has escaped, `at` when the line came, in milliseconds.
  function line(number, text, at) {
    return (
      `<div class="log-line" id="L${number}"><a class="log-number" href="#L${number}" ` +
      `data-line="${number}" aria-label="Line ${number}"></a>` +
      `<span class="log-time"${timeOf(at)}</span>` +
      `<span class="log-text">${text}</span></div>`
    );
  }

  // The rest of an element that shows a time. Lines in a row often have the same one.
  function timeOf(at) {
    if (at !== shownTime.at) {
      shownTime = { at, text: at ? ` title="${days.format(at)}">${clock.format(at)}` : ">" };
    }
    return shownTime.text;
  }

  async function get(query) {
    const parameters = new URLSearchParams({ phase, ...query });
    const answer = await fetch(`${address}?${parameters}`);
    if (!answer.ok) {
      throw new Error(`the log's part is not there: ${answer.status}`);
    }
    return answer.json();
  }

  // What is new.

  async function follow() {
    while (isLive) {
      if (document.hidden) {
        await new Promise((wake) =>
          document.addEventListener("visibilitychange", wake, { once: true }),
        );
      }
      try {
        const part = await get({ first: Math.max(1, total), count: 2 * BLOCK, after: bytes });
        isLive = part.live;
        if (part.bytes < bytes || part.attempt !== attempt) {
          // Another attempt, or the agent sends the log again.
          blocks.forEach((block) => {
            block.element.replaceChildren();
            block.isLoaded = false;
          });
        }
        bytes = part.bytes;
        attempt = part.attempt;
        total = part.total;
        grow();
        keep(part.first, part.html, part.times);
        blocks.forEach((block, index) => block.isSeen && load(index));
        if (following.checked) {
          toEnd();
        }
      } catch {
        await new Promise((wake) => setTimeout(wake, 2000));
      }
    }
    panel.classList.add("is-complete");
    following.checked = false;
    following.disabled = true;
  }

  function toEnd() {
    view.scrollTop = view.scrollHeight;
  }

  function scrolled() {
    const isAtEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 2 * lineHeight;
    if (!isAtEnd && following.checked && isLive) {
      following.checked = false;
    } else if (isAtEnd && isLive && selected === null) {
      following.checked = true;
    }
  }

  function wrap() {
    localStorage.setItem("log-wrap", String(wrapping.checked));
    view.classList.toggle("is-wrapped", wrapping.checked);
    blocks.forEach((block, index) => block.isLoaded || reserve(block, index));
    if (following.checked) {
      toEnd();
    }
  }

  function showTimes() {
    localStorage.setItem("log-times", String(timing.checked));
    view.classList.toggle("has-times", timing.checked);
  }

  // Lines that a link names: #L120, or #L120-L130.

  function select() {
    const found = /^#L(\d+)(?:-L?(\d+))?$/.exec(location.hash);
    selected = found && order(Number(found[1]), Number(found[2] || found[1]));
    mark();
    if (selected) {
      following.checked = false;
      reveal(selected[0], "center");
    }
  }

  function order(one, other) {
    return [Math.min(one, other), Math.max(one, other)];
  }

  function clicked(event) {
    const number = event.target.closest(".log-number");
    if (!number) {
      return;
    }
    event.preventDefault();
    const clickedLine = Number(number.dataset.line);
    const range = event.shiftKey && selected ? order(selected[0], clickedLine) : [clickedLine, clickedLine];
    const hash = range[0] === range[1] ? `#L${range[0]}` : `#L${range[0]}-L${range[1]}`;
    history.replaceState(null, "", `?phase=${phase}${hash}`);
    selected = range;
    following.checked = false;
    mark();
  }

  async function reveal(number, block) {
    const index = Math.floor((Math.min(number, total) - 1) / BLOCK);
    if (number < 1 || !blocks[index]) {
      return;
    }
    blocks[index].element.scrollIntoView({ block: "nearest" });
    await load(index);
    const found = document.getElementById(`L${number}`);
    if (found) {
      found.scrollIntoView({ block });
    }
  }

  function mark() {
    for (const element of view.querySelectorAll(".log-line")) {
      const number = Number(element.firstElementChild.dataset.line);
      const isSelected = selected !== null && number >= selected[0] && number <= selected[1];
      element.classList.toggle("is-selected", isSelected);
      element.classList.toggle("is-match", matchSet.has(number));
      element.classList.toggle("is-current", matches[match] === number);
    }
  }

  // Search.

  async function find() {
    const text = search.value;
    if (text === "") {
      matches = [];
      matchSet = new Set();
      match = -1;
      matchSummary.textContent = "";
      mark();
      return;
    }
    const parameters = new URLSearchParams({ phase, q: text });
    const answer = await fetch(`${address}/search?${parameters}`);
    if (!answer.ok || search.value !== text) {
      return;
    }
    const found = await answer.json();
    matches = found.lines;
    matchSet = new Set(matches);
    match = -1;
    panel.dataset.more = String(found.more);
    next(1);
  }

  function next(step) {
    if (matches.length === 0) {
      matchSummary.textContent = search.value === "" ? "" : "No matches";
      mark();
      return;
    }
    match = (match + step + matches.length) % matches.length;
    const more = panel.dataset.more === "true" ? "+" : "";
    matchSummary.textContent = `${match + 1} of ${matches.length}${more}`;
    following.checked = false;
    mark();
    reveal(matches[match], "center");
  }
}
