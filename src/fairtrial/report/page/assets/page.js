// Draws the charts of a page and makes its controls work. No eval, no network, no markup made of text.
"use strict";
(() => {
  // What rows of charts call things, in words; the rest of their keys are for drawing only.
  const WORDS = {
    arm: "Arm", epoch: "Epoch", seed: "Seed", mean: "Mean", low: "Low", high: "High", n: "Seeds", x: "Value",
    words: "Verdict", y: "Value", value: "Value", verdict: "Verdict", step: "Step", seeds: "Seeds", setting: "Setting",
    margin: "Margin", eps: "epsilon",
  };
  const OVER_SEEDS = { low: "Lowest", high: "Highest" }; // in rows that count seeds
  const SILENT = new Set(["marked", "last", "at", "label", "start", "end", "edge", "turn", "row", "ink", "first", "detail"]);
  const root = document.documentElement;
  root.classList.add("js");

  const stored = (key, value) => {
    try {
      if (value === undefined) return localStorage.getItem(key);
      localStorage.setItem(key, value);
    } catch { /* a page from disk may have no storage */ }
    return null;
  };
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
  const charts = new Map();
  const hiddenArms = new Set();

  function walk(node, change) {
    if (Array.isArray(node)) { node.forEach((each) => walk(each, change)); return; }
    if (node === null || typeof node !== "object") return;
    change(node);
    for (const [key, value] of Object.entries(node)) if (key !== "datasets" && key !== "values") walk(value, change);
  }

  const parsed = (values) => (typeof values === "string" ? JSON.parse(values) : values);
  const visible = (rows) => (Array.isArray(rows) ? rows.filter((row) => !hiddenArms.has(row?.arm)) : rows);

  // Leave out panels that show nothing but arms that are not shown; if none were left, all stay and are empty.
  function dropHidden(spec) {
    if (!hiddenArms.size) return;
    const armsOf = (view) => {
      const arms = new Set();
      walk(view, (node) => { for (const row of node.data ? rowsOf(spec, node.data) : []) if (row?.arm !== undefined) arms.add(row.arm); });
      return arms;
    };
    walk(spec, (node) => {
      for (const key of ["hconcat", "vconcat", "concat"]) {
        if (!node[key]) continue;
        const some = node[key].map(armsOf);
        const shown = (arms) => [...arms].some((arm) => !hiddenArms.has(arm));
        if (!some.some(shown)) continue;
        const title = titleOf(node[key][0]);
        node[key] = node[key].filter((_, at) => !some[at].size || shown(some[at]));
        if (key === "concat") node[key].filter((_, at) => at % (node.columns ?? Infinity) === 0).forEach((view) => giveTitle(view, title));
      }
    });
  }

  // The title of a vertical axis, which only the first panel of a row has.
  const vertical = (view) => (view.layer ?? [view]).map((unit) => unit.encoding?.y).filter((y) => measured(y));
  const titleOf = (view) => vertical(view).find((y) => y.title)?.title;
  const giveTitle = (view, title) => vertical(view).forEach((y) => { if (title && !y.title) y.title = title; });

  function rowsOf(spec, data) {
    if (!data) return [];
    const rows = data.name && spec.datasets ? spec.datasets[data.name] : data.values;
    return Array.isArray(rows) ? rows : [];
  }

  const measured = (channel) => channel?.field && channel.type === "quantitative" && channel.scale !== null;
  const typeOf = (mark) => (typeof mark === "string" ? mark : mark?.type);
  const marked = (unit, more) => { unit.mark = { ...(typeof unit.mark === "string" ? { type: unit.mark } : unit.mark), ...more }; };

  // Views that plot numbers: each has layers, or is a layer itself.
  function plots(spec) {
    const found = [];
    const look = (node, inherited) => {
      const data = node.data ?? inherited;
      for (const key of ["hconcat", "vconcat", "concat"]) (node[key] ?? []).forEach((each) => look(each, data));
      if (node.spec) look(node.spec, data);
      if (node.layer) {
        const units = node.layer.filter((unit) => unit.mark && (measured(unit.encoding?.x) || measured(node.encoding?.x)));
        if (units.length) found.push({ view: node, units, data });
      } else if (node.mark && measured(node.encoding?.x)) found.push({ view: node, units: [node], data });
    };
    look(spec, undefined);
    return found;
  }

  // Points carry what a reader sees on hovering; a line has invisible ones, for it is one thing to Vega. What the axes
  // call their fields is returned by the names of marks; panels without a title go by the one before them.
  function addTooltips(spec) {
    const heads = new Map(), titles = {};
    const name = (unit) => {
      const own = {};
      for (const channel of ["x", "y"]) {
        const axis = unit.encoding?.[channel];
        if (!measured(axis)) continue;
        if (axis.title) titles[channel] = String(axis.title).replace(/^\u2190[^\u2003]*\u2003+|\u2003+[^\u2003]*\u2192$/g, "");
        own[axis.field] = titles[channel];
      }
      unit.name = `drawing${heads.size}`;
      heads.set(`${unit.name}_marks`, own);
      return unit;
    };
    for (const { view, units, data } of plots(spec)) {
      const more = [];
      for (const unit of units) {
        if (view.layer) name(unit);
        if (unit.mark.tooltip !== undefined || unit.encoding?.tooltip) continue;
        const type = typeOf(unit.mark);
        if (["point", "circle", "square", "rule", "bar", "rect", "tick"].includes(type)) marked(unit, { tooltip: { content: "data" } });
        const rows = rowsOf(spec, unit.data ?? data);
        if (type === "line" && view.layer && measured(unit.encoding?.y) && rows.length && rows.length <= 3000) {
          const encoding = { x: unit.encoding.x, y: unit.encoding.y };
          const layer = { mark: { type: "point", opacity: 0, size: 130, clip: true, tooltip: { content: "data" } }, encoding };
          if (unit.data) layer.data = unit.data;
          more.push(name(layer));
        }
      }
      if (view.layer) view.layer.push(...more);
    }
    return heads;
  }

  function addSeeds(spec, rows) {
    const target = plots(spec).find(({ view, units }) => view.layer && units.some((unit) => typeOf(unit.mark) === "line" && measured(unit.encoding?.y)));
    if (!target) return;
    const line = target.units.find((unit) => typeOf(unit.mark) === "line" && unit.encoding.y.field === "mean")
      ?? target.units.find((unit) => typeOf(unit.mark) === "line" && measured(unit.encoding?.y));
    const { x, y, color, strokeDash } = line.encoding;
    const encoding = { x: { ...x, field: "x" }, y: { ...y, field: "y" }, detail: { field: "seed", type: "nominal" } };
    if (color) encoding.color = color;
    if (strokeDash) encoding.strokeDash = strokeDash;
    const data = { values: visible(rows) };
    target.view.layer.push({ data, mark: { type: "line", strokeWidth: 0.9, opacity: 0.55, clip: true }, encoding });
    const { strokeDash: _, ...points } = encoding;
    target.view.layer.push({ data, mark: { type: "point", opacity: 0, size: 80, clip: true, tooltip: { content: "data" } }, encoding: points });
  }

  function addZoom(spec) {
    const names = [];
    plots(spec).forEach(({ view, units }, at) => {
      const unit = units.find((each) => measured(each.encoding?.y)) ?? units[0];
      const encodings = measured(unit.encoding?.y) ? ["x", "y"] : ["x"];
      const name = `zoom${at}`;
      const translate = matchMedia("(pointer: coarse)").matches ? false : undefined;
      const select = { type: "interval", encodings, zoom: "wheel![event.ctrlKey || event.metaKey || event.shiftKey]" };
      if (translate === false) select.translate = false;
      unit.params = [...(unit.params ?? []), { name, select, bind: "scales" }];
      names.push({ name, fields: encodings.map((channel) => unit.encoding[channel].field) });
      for (const each of view.layer ?? [view]) {
        if (each.mark && typeOf(each.mark) !== "text") marked(each, { clip: true });
        for (const channel of ["x", "y"]) if (each.encoding?.[channel]?.scale?.clamp) each.encoding[channel].scale = { ...each.encoding[channel].scale, clamp: false };
      }
    });
    return names;
  }

  // Narrow a chart to the space there is: plots shrink, and what stood side by side stands one below the other.
  function fit(spec, natural, space) {
    if (natural <= space) return;
    const side = (spec.hconcat ?? []).filter((view) => view.width >= 200);
    const less = Math.ceil((natural - space) / side.length);
    if (side.length > 1 && side.every((view) => view.width - less >= 150)) { // still wide enough side by side
      for (const view of side) view.width -= less;
      return;
    }
    if (spec.hconcat) { spec.vconcat = spec.hconcat; delete spec.hconcat; }
    const single = !spec.vconcat && !spec.concat;
    walk(spec, (node) => {
      if (typeof node.width !== "number" || node.width <= 200 || !(node.layer || node.mark || node.spec)) return;
      const before = node.width;
      node.width = Math.max(150, single ? before - (natural - space) : Math.min(before, space - 90));
      walk(node.layer ?? node.spec ?? node, (part) => {
        const x = part.encoding?.x;
        if (x && typeof x.value === "number" && x.value > before - 1) part.encoding.x = { ...x, value: x.value - before + node.width };
      });
    });
    if (typeof spec.columns === "number") spec.columns = 1;
  }

  let bubble = null;
  function tooltip(event, value, heads) {
    const told = value === null || value === undefined || value === "" ? null : describe(value, heads);
    if (!bubble) {
      bubble = document.createElement("div");
      bubble.className = "chart-tooltip";
      document.body.append(bubble);
    }
    bubble.hidden = !told?.rows.length;
    if (bubble.hidden) return;
    bubble.replaceChildren(told);
    const box = bubble.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - box.width - 6);
    const above = event.clientY - box.height - 12;
    bubble.style.left = `${Math.max(6, left)}px`;
    bubble.style.top = `${above > 6 ? above : event.clientY + 16}px`;
  }

  function describe(value, heads) {
    const table = document.createElement("table");
    const rows = typeof value === "object" ? Object.entries(value) : [["", value]];
    const named = new Set(rows.map(([key]) => key));
    for (const [key, each] of rows) {
      if (SILENT.has(key) || typeof each === "boolean" || each === null || (key.startsWith("_") && key.length > 1)) continue;
      if (key === "x" && named.has("epoch")) continue;
      if (key.endsWith("_sort_index")) continue; // of Vega-Lite's
      if (key === "mean" && rows.some(([other]) => other.startsWith("mean difference"))) continue;
      const row = table.insertRow();
      const head = document.createElement("th");
      const axis = key === "x" || key === "y" ? heads[key] : undefined;
      head.textContent = axis ?? (named.has("n") ? OVER_SEEDS[key] : undefined) ?? WORDS[key] ?? key.replaceAll("_", " ");
      head.textContent = head.textContent.charAt(0).toUpperCase() + head.textContent.slice(1);
      row.append(head);
      row.insertCell().textContent = typeof each === "number" && !Number.isInteger(each) ? Number(each.toPrecision(4)).toString() : String(each);
    }
    return table;
  }

  const refuse = () => Promise.reject(new Error("a chart loads nothing"));
  const loader = { load: refuse, sanitize: refuse, http: refuse, file: refuse, options: {} };

  class Chart {
    constructor(element) {
      this.element = element;
      this.live = element.querySelector(".chart-live");
      this.picture = element.querySelector(".chart-static img");
      this.content = JSON.parse(element.querySelector("[data-content]").textContent);
      this.zooming = false;
      this.seeds = false;
      this.turn = Promise.resolve();
      const tools = element.querySelector(".chart-tools");
      tools.hidden = false;
      const zoom = tools.querySelector("[data-zoom]");
      if (!plots(this.content.spec).length) zoom.hidden = true;
      zoom.addEventListener("click", () => {
        this.zooming = !this.zooming;
        zoom.setAttribute("aria-pressed", String(this.zooming));
        tools.querySelector(".zooming").hidden = !this.zooming;
        this.draw();
      });
      tools.querySelector("[data-seeds]")?.addEventListener("change", (event) => { this.seeds = event.target.checked; this.draw(); });
      for (const step of tools.querySelectorAll("[data-step]")) step.addEventListener("click", () => this.step(step.dataset.step));
    }

    spec() {
      const spec = structuredClone(this.content.spec);
      spec.datasets = Object.fromEntries(Object.entries(spec.datasets ?? {}).map(([name, values]) => [name, parsed(values)]));
      walk(spec, (node) => { if (node.data?.values) node.data = { ...node.data, values: parsed(node.data.values) }; });
      dropHidden(spec);
      for (const [name, rows] of Object.entries(spec.datasets)) spec.datasets[name] = visible(rows);
      walk(spec, (node) => { if (node.data?.values) node.data.values = visible(node.data.values); });
      walk(spec, (node) => { if (node.data?.format?.type === "json") node.data = (({ format, ...data }) => data)(node.data); });
      if (this.seeds) addSeeds(spec, this.content.seeds);
      this.heads = addTooltips(spec);
      this.zooms = this.zooming ? addZoom(spec) : [];
      fit(spec, Number(this.picture.getAttribute("width")), this.space()); // not its own width, which is as shown
      spec.config = { ...(isDark() ? this.content.dark : spec.config), aria: false };
      return spec;
    }

    space() { return this.element.clientWidth || innerWidth; }

    draw() {
      this.turn = this.turn.then(() => this.drawn()).catch((error) => console.error(error));
      return this.turn;
    }

    async drawn() {
      const tell = (_handler, event, item, value) => tooltip(event, value, this.heads.get(item?.mark?.name) ?? {});
      const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: tell, loader };
      this.live.hidden = false;
      const frame = document.createElement("div");
      frame.setAttribute("aria-hidden", "true"); // the element around it has the words, the table below the numbers
      const result = await window.vegaEmbed(frame, this.spec(), options);
      this.result?.finalize();
      this.result = result;
      this.live.replaceChildren(frame);
      this.shrink(frame.querySelector("svg"));
      this.element.classList.add("drawn");
      this.width = this.space();
      if (this.live.scrollWidth > this.live.clientWidth + 1) this.live.tabIndex = 0; else this.live.removeAttribute("tabindex");
    }

    // A chart that is still a little too wide is scaled down; one that is much too wide is scrolled.
    shrink(svg) {
      const width = Number(svg?.getAttribute("width")), height = Number(svg?.getAttribute("height")), space = this.space();
      if (!(width > space) || width > 1.6 * space) return;
      svg.setAttribute("width", space);
      svg.setAttribute("height", (height * space) / width);
    }

    step(kind) {
      const view = this.result?.view;
      if (!view) return;
      if (kind === "reset") { this.draw(); return; }
      for (const { name, fields } of this.zooms) {
        fields.forEach((field, at) => {
          if (at > 0 && (kind === "left" || kind === "right")) return;
          const signal = `${name}_${field}`;
          let ends;
          try { ends = view.signal(signal) ?? this.domain(view, name, at); } catch { return; }
          if (!ends) return;
          const [low, high] = ends, width = high - low, middle = (low + high) / 2;
          const shift = kind === "left" ? -0.2 * width : kind === "right" ? 0.2 * width : 0;
          const half = (width / 2) * (kind === "in" ? 0.7 : kind === "out" ? 1 / 0.7 : 1);
          view.signal(signal, [middle - half + shift, middle + half + shift]);
        });
      }
      view.runAsync();
    }

    domain(view, name, at) {
      const number = name.replace("zoom", "");
      const channel = at ? "y" : "x";
      for (const scale of [`concat_${number}_${channel}`, `concat_0_${channel}`, channel]) {
        try { return view.scale(scale).domain(); } catch { /* another name */ }
      }
      return null;
    }
  }

  const near = "IntersectionObserver" in window
    ? new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const chart = charts.get(entry.target);
        if (!entry.isIntersecting || !chart || chart.result) continue;
        near.unobserve(entry.target);
        chart.draw();
      }
    }, { rootMargin: "600px" })
    : null;

  const redraw = () => charts.forEach((chart) => { if (chart.result) chart.draw(); });

  function inkSwatches() {
    for (const line of document.querySelectorAll("[data-light]")) {
      line.setAttribute("stroke", isDark() ? line.dataset.dark : line.dataset.light);
    }
  }

  function startTheme(button) {
    const label = () => {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colors`);
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      stored("fairtrial-theme", root.dataset.theme);
      label();
      inkSwatches();
      redraw();
    });
    prefersDark.addEventListener("change", () => { label(); inkSwatches(); redraw(); });
    label();
  }

  function startArms(panel) {
    const boxes = [...panel.querySelectorAll("[data-arm]")];
    const changed = () => {
      for (const box of boxes) if (box.checked) hiddenArms.delete(box.dataset.arm); else hiddenArms.add(box.dataset.arm);
      redraw();
    };
    for (const box of boxes) {
      if (hiddenArms.has(box.dataset.arm)) box.checked = false;
      box.addEventListener("change", changed);
    }
    for (const [name, on] of [["[data-arms-all]", true], ["[data-arms-none]", false]]) {
      panel.querySelector(name)?.addEventListener("click", () => { boxes.forEach((box) => { box.checked = on; }); changed(); });
    }
  }

  function startChoices(choices) {
    const select = choices.querySelector("select");
    if (!select) return;
    select.closest(".chooser").hidden = false;
    select.addEventListener("change", () => {
      for (const choice of choices.querySelectorAll("[data-choice]")) choice.classList.toggle("chosen", choice.dataset.choice === select.value);
    });
  }

  // Start what is new below an element: a page that changes parts of itself calls this for each.
  function start(within = document) {
    const fresh = (selector) => [...within.querySelectorAll(selector)].filter((element) => {
      if (element.dataset.started) return false;
      element.dataset.started = "yes";
      return true;
    });
    fresh("[data-theme-toggle]").forEach(startTheme);
    fresh("[data-arms]").forEach(startArms);
    fresh("[data-choices]").forEach(startChoices);
    for (const [element, chart] of charts) if (!element.isConnected) { chart.result?.finalize(); charts.delete(element); }
    for (const element of fresh("[data-chart]")) {
      const chart = new Chart(element);
      charts.set(element, chart);
      if (near) near.observe(element); else chart.draw();
    }
    inkSwatches();
  }

  // Replace a chart's content, drawing it in place: no flash, and its zoom and seeds stay as they are.
  function update(element, content) {
    const chart = charts.get(element);
    if (!chart) return;
    chart.content = content;
    if (chart.result) chart.draw();
  }

  let resizing = 0;
  addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => charts.forEach((chart) => { if (chart.result && Math.abs(chart.space() - chart.width) > 8) chart.draw(); }), 150);
  });
  const chosen = stored("fairtrial-theme");
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  window.fairtrialPage = { start, update, drawAll: () => Promise.all([...charts.values()].map((chart) => chart.draw())) };
  start();
})();
