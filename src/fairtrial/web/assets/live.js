// Follows a store: fills the parts of a page as the server sends them, and fetches charts that come into sight.
"use strict";
(() => {
  const live = document.querySelector("[data-live]");
  if (!live) return;
  const connection = live.querySelector("[data-connection]");
  const problem = live.querySelector("[data-problem]");
  const shelf = live.querySelector("[data-charts]");
  const page = window.fairtrialPage;
  let source = null, lastWord = "", skew = 0;

  const say = (text, lost) => {
    if (text === lastWord) return;
    lastWord = text;
    connection.textContent = text;
    connection.classList.toggle("lost", Boolean(lost));
  };

  // What the server sends is markup in which every text is escaped; scripts in it would not run.
  const parse = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content;
  };

  function fill(name, html) {
    for (const part of document.querySelectorAll("[data-part]")) {
      if (part.dataset.part !== name || part.fairtrialText === html) continue;
      part.fairtrialText = html;
      const active = document.activeElement;
      const inside = active && active !== part && part.contains(active) ? [...part.querySelectorAll("a, button, summary, [tabindex], input, select")].indexOf(active) : -1;
      const opened = new Set([...part.querySelectorAll("details[open]")].map((each, at) => each.id || at));
      const scrolled = [...part.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
      part.replaceChildren(parse(html));
      [...part.querySelectorAll("details")].forEach((each, at) => { if (opened.has(each.id || at)) each.open = true; });
      [...part.querySelectorAll(".scroll")].forEach((each, at) => { if (scrolled[at]) [each.scrollLeft, each.scrollTop] = scrolled[at]; });
      if (inside >= 0) part.querySelectorAll("a, button, summary, [tabindex], input, select")[inside]?.focus({ preventScroll: true });
      const section = part.closest("section");
      if (section) section.hidden = !html;
      page.start(part);
    }
    tell();
  }

  // Charts: a slot for each name; one that is near the window is fetched anew when the study has new results.
  const slots = new Map();
  const waiting = [];
  let number = 0, fetching = false;
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const slot = slots.get(entry.target.dataset.name);
      slot.near = entry.isIntersecting;
      want(slot);
    }
  }, { rootMargin: "400px" });

  function want(slot) {
    if (!(slot.near || slot.empty || !slot.number) || slot.tried >= number || waiting.includes(slot)) return;
    waiting.push(slot);
    next();
  }

  async function next() {
    if (fetching || !waiting.length) return;
    fetching = true;
    const slot = waiting.shift(), wanted = number;
    slot.tried = wanted;  // once for each state of the results: a server that has ended is not asked again and again
    try {
      const answer = await fetch(`${live.dataset.chartsAt}?name=${encodeURIComponent(slot.name)}`);
      if (answer.ok) {
        show(slot, await answer.json());
        slot.number = wanted;
      }
    } catch { /* the connection says so itself, and the next results ask again */ }
    fetching = false;
    want(slot);
    next();
  }

  function show(slot, chart) {
    slot.element.classList.add("filled");
    slot.empty = slot.element.hidden = !chart.html;
    if (!chart.html) { slot.element.textContent = ""; return; }
    const fresh = parse(chart.html);
    const before = slot.element.querySelector("[data-chart]"), after = fresh.querySelector("[data-chart]");
    if (!before || before.querySelectorAll("figcaption, [data-seeds]").length !== after.querySelectorAll("figcaption, [data-seeds]").length) {
      slot.element.replaceChildren(fresh);
      page.start(slot.element);
      return;
    }
    const take = (selector, copy) => { const [old, made] = [before.querySelector(selector), after.querySelector(selector)]; if (old && made) copy(old, made); };
    const contents = (old, made) => old.replaceChildren(...made.childNodes);
    take("h2, h3, h4", contents);
    take("figcaption", contents);
    take(".chart-static img", (old, made) => { for (const name of ["src", "alt", "width", "height"]) old.setAttribute(name, made.getAttribute(name)); });
    take(".chart-live", (old, made) => old.setAttribute("aria-label", made.getAttribute("aria-label")));
    take(".chart-data .scroll", contents);
    page.update(before, JSON.parse(after.querySelector("[data-content]").textContent));
  }

  function charts(told) {
    number = told.number;
    shelf.querySelector("[data-waiting]")?.remove();
    for (const name of told.names) {
      if (!slots.has(name)) {
        const element = document.createElement("div");
        element.className = "chart-slot";
        element.dataset.name = name;
        element.textContent = "Drawing a chart.";
        shelf.append(element);
        slots.set(name, { name, element, number: 0, tried: 0, near: false, empty: false });
        near.observe(element);
      }
      want(slots.get(name));
    }
  }

  // Times: the server sends moments, and the page counts.
  const short = (seconds) => {
    const whole = Math.max(0, Math.round(seconds));
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
    if (whole < 172800) return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
    return `${Math.floor(whole / 86400)} days`;
  };

  function put(element, text) { if (element.textContent !== text) element.textContent = text; }

  function tell() {
    const now = Date.now() + skew;
    for (const time of document.querySelectorAll("time[data-ago]")) {
      put(time, `${short((now - Date.parse(time.dateTime)) / 1000)} ago`);
      time.title ||= new Date(time.dateTime).toLocaleString();
    }
    for (const time of document.querySelectorAll("time[data-clock]")) put(time, new Date(time.dateTime).toLocaleTimeString());
    for (const left of document.querySelectorAll("[data-left]")) {
      left.fairtrialEnd ??= now + 1000 * Number(left.dataset.left);
      const seconds = (left.fairtrialEnd - now) / 1000;
      put(left.querySelector("b"), seconds < 1 ? "a moment" : short(seconds));
    }
  }

  function connect() {
    if (source) return;
    source = new EventSource(live.dataset.live);
    source.addEventListener("hello", (event) => { skew = JSON.parse(event.data).now - Date.now(); say("Live: this page follows the store."); tell(); slots.forEach((slot) => { slot.tried = slot.number; want(slot); }); });
    source.addEventListener("part", (event) => { const { name, html } = JSON.parse(event.data); fill(name, html); });
    source.addEventListener("charts", (event) => charts(JSON.parse(event.data)));
    source.addEventListener("problem", (event) => {
      const { text } = JSON.parse(event.data);
      problem.textContent = text;
      problem.hidden = !text;
    });
    source.addEventListener("error", () => {
      say("The server does not answer; trying again. What is shown is the last that came.", true);
      if (source?.readyState !== EventSource.CLOSED) return;
      source = null;
      setTimeout(connect, 3000);
    });
  }

  function disconnect() {
    source?.close();
    source = null;
    say("Paused while this tab is hidden.");
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  setInterval(tell, 1000);
  if (document.hidden) say("Paused while this tab is hidden."); else connect();
})();
