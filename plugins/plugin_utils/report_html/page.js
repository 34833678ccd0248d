// The page of the audit. Names of guests come from whoever made them: they become text nodes here, never markup.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const { severities, rules, hosts, shapes, strings } = data;
  const states = data.states.map(([state]) => state);
  const SIGNS = data.states.map(([, sign]) => sign);
  const LABELS = data.states.map(([, , label]) => label);
  const collapses = states.map((state) => data.collapsed.includes(state));
  const SHOWN_AT_FIRST = states.filter((state, at) => !collapses[at]);
  const PAGE = 100;
  const PRINTED = 300;
  const LONG = data.long;
  const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u;
  const MAPPINGS = { bsi: "BSI SYS.1.5", osg: "OpenStack Security Guide", nist: "NIST SP 800-125A", stig: "ESXi STIG analogue" };

  // A shape is a finding but for its host and object.
  const ruleOf = (shape) => rules[shape[0]];
  const stateOf = (shape) => shape[1];
  const severityOf = (rule) => severities.indexOf(rule.severity);

  // ------------------------------------------------------------------ elements

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "class") element.className = value;
      else if (value === true) element.setAttribute(key, "");
      else if (value !== false && value !== null) element.setAttribute(key, value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== ""));
    return element;
  }

  const number = (character) => "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");

  // Text from outside: what cannot be seen, or turns the direction of writing, is told by its number. Only some texts may
  // have several lines.
  function visible(text, lines = false) {
    const element = make("bdi", { class: text.length > LONG ? "long" : "" });
    if (!INVISIBLE.test(text)) {
      element.textContent = text;
      return element;
    }
    let run = "";
    for (const character of text) {
      if (INVISIBLE.test(character) && !(lines && "\n\t".includes(character))) {
        element.append(run, make("span", { class: "code-point" }, number(character)));
        run = "";
      } else run += character;
    }
    element.append(run);
    return element;
  }

  const plain = (text) =>
    INVISIBLE.test(text) ? Array.from(text, (one) => (INVISIBLE.test(one) ? `[${number(one)}]` : one)).join("") : text;

  const chip = (state, extra, count) =>
    make(
      "span",
      { class: `state ${states[state]}` },
      make("span", { "aria-hidden": "true" }, SIGNS[state]),
      ` ${count === undefined ? "" : `${count} `}${LABELS[state]}${extra ? `: ${extra.replaceAll("_", " ")}` : ""}`,
    );

  const severity = (rule, place) => make("span", { class: `severity ${rule.severity} ${place || ""}` }, rule.severity);

  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

  // ------------------------------------------------------------------ the filter

  const form = byId("filter");
  const list = byId("list");
  const defaults = () => ({
    text: "",
    host: "",
    category: "",
    by: hosts.length === 1 ? "host" : "rule",
    state: new Set(SHOWN_AT_FIRST),
    severity: new Set(),
  });
  let filter = defaults();
  let opened = new Set();
  let limit = PAGE;

  const same = (one, other) => one.size === other.size && [...one].every((entry) => other.has(entry));

  function fragment() {
    const first = defaults();
    const parts = new URLSearchParams();
    for (const key of ["text", "host", "category", "by"]) if (filter[key] !== first[key]) parts.set(key, filter[key]);
    for (const key of ["state", "severity"]) if (!same(filter[key], first[key])) parts.set(key, [...filter[key]].join(","));
    return parts.toString().replaceAll("%2C", ",");
  }

  function readFragment() {
    const text = location.hash.slice(1);
    if (text && !text.includes("=")) return false; // an anchor of the page
    const parts = new URLSearchParams(text);
    filter = defaults();
    for (const key of ["text", "host", "category"]) if (parts.has(key)) filter[key] = parts.get(key);
    if (["rule", "host"].includes(parts.get("by"))) filter.by = parts.get("by");
    for (const [key, known] of [["state", states], ["severity", severities]]) {
      if (parts.has(key)) filter[key] = new Set(parts.get(key).split(",").filter((entry) => known.includes(entry)));
    }
    return true;
  }

  function keepInFragment(step) {
    const wanted = fragment();
    if (wanted === location.hash.slice(1)) return;
    try {
      history[step ? "pushState" : "replaceState"](null, "", `#${wanted}`);
    } catch {
      location.replace(`#${wanted}`); // a page shown in a sandbox has no history of its own
    }
  }

  function showFilter() {
    for (const key of ["text", "host", "category", "by"]) byId(key).value = filter[key];
    for (const box of form.querySelectorAll("input[type=checkbox]")) box.checked = filter[box.name].has(box.value);
  }

  const haystacks = new Array(shapes.length);
  function haystack(index) {
    if (haystacks[index] === undefined) {
      const [, , pending, observed, expected, reason, checks, waiver] = shapes[index];
      const rule = ruleOf(shapes[index]);
      const texts = [rule.id, rule.code, rule.title, rule.category, strings[pending], strings[observed], strings[expected]];
      texts.push(strings[reason], JSON.stringify(rule.mappings || {}), ...checks.flat().map((entry) => strings[entry]));
      haystacks[index] = texts.concat(waiver.flat()).join("\n").toLowerCase();
    }
    return haystacks[index];
  }

  // Calls visit(host, shape, objects, collapsed) for what passes the filter; collapsed ones only fail it by their state.
  function walk(visit, facets) {
    const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
    const left = new Array(words.length ? shapes.length : 0);
    const exact = hosts.some((host) => host.name === filter.host);
    const wanted = filter.host.toLowerCase();
    const stateWanted = states.map((name) => !filter.state.size || filter.state.has(name));
    const passes = shapes.map((shape) => {
      const rule = ruleOf(shape);
      if (filter.category && rule.category !== filter.category) return 0;
      const severe = !filter.severity.size || filter.severity.has(rule.severity);
      return (severe ? 1 : 0) + (stateWanted[stateOf(shape)] ? 2 : 0);
    });
    hosts.forEach((host, h) => {
      if (wanted && (exact ? host.name !== filter.host : !host.name.toLowerCase().includes(wanted))) return;
      const name = host.name.toLowerCase();
      for (let at = 0; at < host.findings.length; at += 2) {
        const index = host.findings[at];
        const pass = passes[index];
        if (!pass) continue;
        let objects = host.sets[host.findings[at + 1]];
        if (words.length) {
          if (left[index] === undefined) left[index] = words.filter((word) => !haystack(index).includes(word));
          const rest = left[index].filter((word) => !name.includes(word));
          if (rest.length) {
            objects = objects.filter((one) => rest.every((word) => host.objects[one].join(" ").toLowerCase().includes(word)));
            if (!objects.length) continue;
          }
        }
        const shape = shapes[index];
        if (facets && pass & 1) facets.state[stateOf(shape)] += objects.length;
        if (facets && pass & 2) facets.severity[severityOf(ruleOf(shape))] += objects.length;
        if (pass === 3) visit(h, index, objects, false);
        else if (pass === 1 && collapses[stateOf(shape)]) visit(h, index, objects, true);
      }
    });
  }

  // ------------------------------------------------------------------ one finding

  const term = (name, ...children) => (children.length ? [make("dt", {}, name), make("dd", {}, ...children)] : []);
  const code = (text) => make("code", {}, visible(text));
  const between = (nodes, separator) => nodes.flatMap((node, index) => (index ? [separator, node] : [node]));

  const source = (text) =>
    /^https:\/\/[^\s]+$/.test(text) && !INVISIBLE.test(text)
      ? make("a", { href: text, rel: "noreferrer noopener", target: "_blank" }, text)
      : visible(text);

  function about(rule) {
    return make(
      "dl",
      { class: "about" },
      rule.why ? term("Why", visible(rule.why, true)) : [],
      rule.remediation ? term("Fix", visible(rule.remediation)) : [],
      rule.breaks ? [make("dt", {}, "Danger"), make("dd", { class: "danger" }, visible(rule.breaks, true))] : [],
      term("Sources", ...between((rule.references || []).map(source), "; ")),
      Object.entries(rule.mappings || {}).flatMap(([key, values]) =>
        values.length ? term(MAPPINGS[key] || key, ...between(values.map((value) => visible(value)), ", ")) : [],
      ),
      term("Control", code(rule.id), ` · level ${rule.level} · ${rule.category}`),
    );
  }

  function evidence([truth, state, observed, expected, from, excerpt]) {
    const text = strings[excerpt];
    const lines = text.split("\n").length;
    return make(
      "div",
      { class: "evidence" },
      make("b", {}, strings[truth]), " ",
      states.includes(strings[state]) ? chip(states.indexOf(strings[state])) : "", " ",
      visible(strings[observed]), strings[expected] ? make("span", { class: "quiet" }, ", expected: ", visible(strings[expected])) : "",
      strings[from] ? make("div", {}, code(strings[from])) : "",
      text ? make("pre", { tabindex: lines > 12 ? "0" : null }, visible(text, true)) : "",
    );
  }

  const objectName = (host, one) => {
    const [type, name, guest] = host.objects[one];
    if (type === "host") return null;
    return make("span", {}, `${type} `, visible(name), guest ? [" of guest ", visible(guest)] : "");
  };

  function objectNames(host, objects, most) {
    const names = objects.slice(0, most).map((one) => objectName(host, one)).filter(Boolean);
    const more = objects.length - most;
    return between(names, ", ").concat(more > 0 ? [` and ${more} more`] : []);
  }

  function detail({ h, index, objects }) {
    const [, , pending, observed, expected, reason, checks, waiver] = shapes[index];
    const host = hosts[h];
    const facts = host.facts;
    return make(
      "div",
      { class: "detail" },
      make(
        "dl",
        { class: "about" },
        term("Host", visible(host.name), make("span", { class: "quiet" },
          ["os", "kernel", "libvirt", "qemu"].filter((key) => facts[key]).map((key) => [` · ${key} `, visible(String(facts[key]))]).flat())),
        objects.length > 1 || objectName(host, objects[0]) ? term(objects.length > 1 ? "Objects" : "Object", ...objectNames(host, objects, 500)) : [],
        strings[observed] ? term("Observed", visible(strings[observed])) : [],
        strings[expected] ? term("Expected", visible(strings[expected])) : [],
        strings[reason] ? term("Reason", visible(strings[reason])) : [],
        strings[pending] ? term("Waits for", strings[pending].replaceAll("_", " ")) : [],
        waiver.length ? term("Waived", ...waiver.map(([key, value]) => make("span", { class: "pair" }, make("b", {}, key), " ", visible(value)))) : [],
        checks.length ? [make("dt", {}, "Evidence"), make("dd", {}, checks.map(evidence))] : [],
        host.collected ? term("Collected", plain(host.collected).replace("T", " ").replace("Z", " UTC")) : [],
      ),
    );
  }

  function toggle(button, panel, open) {
    button.setAttribute("aria-expanded", String(open));
    panel.hidden = !open;
  }

  function entry(item) {
    const shape = shapes[item.index];
    const rule = ruleOf(shape);
    const ofHost = filter.by === "host";
    const host = hosts[item.h];
    const objects = objectNames(host, item.objects, 3);
    const observed = strings[shape[3]] || strings[shape[5]];
    const said = [];
    if (observed) said.push(visible(observed.length > 160 ? `${observed.slice(0, 160)}…` : observed));
    if (strings[shape[4]] && !collapses[stateOf(shape)]) said.push(" → expected ", visible(strings[shape[4]].slice(0, 160)));
    const button = make(
      "button",
      { class: "line", type: "button", "aria-expanded": "false" },
      make("span", { class: "tag" }, chip(stateOf(shape), strings[shape[2]])),
      ofHost ? severity(rule) : "",
      ofHost
        ? make("span", { class: "title" }, make("code", { class: "quiet" }, visible(rule.code)), " ", visible(rule.title), objects.length ? " · " : "", objects)
        : make("span", { class: "where" }, visible(host.name), objects.length ? " · " : "", objects),
      make("span", { class: "said" }, said),
    );
    const panel = make("div", { hidden: true });
    const box = make("div", { class: `entry${ofHost ? " of-host" : ""}` }, button, panel);
    const change = (open) => {
      if (open && !panel.firstChild) {
        panel.append(detail(item));
        if (ofHost) panel.firstChild.append(about(rule));
      }
      box.classList.toggle("opened", open);
      toggle(button, panel, open);
    };
    button.addEventListener("click", () => change(panel.hidden));
    box.open = () => change(true);
    return box;
  }

  // ------------------------------------------------------------------ the list

  const keyOf = (h, index) => (filter.by === "host" ? h : shapes[index][0]);

  function gather(key) {
    const found = { shown: [], collapsed: [] };
    walk((h, index, objects, collapsed) => {
      if (keyOf(h, index) === key) found[collapsed ? "collapsed" : "shown"].push({ h, index, objects });
    });
    const order = ({ h, index }) => [stateOf(shapes[index]), severityOf(ruleOf(shapes[index])), shapes[index][0], h];
    for (const items of Object.values(found)) {
      const ranked = items.map((item) => [order(item), item]);
      ranked.sort(([one], [other]) => one.reduce((sofar, value, at) => sofar || value - other[at], 0));
      items.splice(0, items.length, ...ranked.map(([, item]) => item));
    }
    return found;
  }

  // The first PAGE items, and a button for the next.
  function append(place, items, build) {
    let shown = 0;
    const more = make("button", { class: "more", type: "button" });
    const next = () => {
      const from = shown;
      shown = Math.min(shown + PAGE, items.length);
      const built = items.slice(from, shown).map(build);
      place.append(...built);
      more.textContent = `Show ${Math.min(PAGE, items.length - shown)} more of ${items.length - shown}`;
      if (shown < items.length) place.append(more);
      else more.remove();
      return built;
    };
    next();
    more.addEventListener("click", () => next()[0]?.querySelector(".line")?.focus());
  }

  function fill(inside, group) {
    const { shown, collapsed } = gather(group.key);
    if (filter.by === "rule") inside.append(about(rules[group.key]));
    const entries = make("div");
    append(entries, shown, entry);
    inside.append(entries);
    if (collapsed.length) {
      const counts = new Array(states.length).fill(0);
      for (const { index, objects } of collapsed) counts[stateOf(shapes[index])] += objects.length;
      const told = states.map((name, at) => (counts[at] ? `${counts[at]} ${LABELS[at].toLowerCase()}` : "")).filter(Boolean);
      const more = make("button", { class: "more", type: "button" }, `Show also ${told.join(", ")}`);
      more.addEventListener("click", () => {
        const rest = make("div");
        append(rest, collapsed, entry);
        more.replaceWith(rest);
        rest.querySelector(".line").focus();
      });
      inside.append(more);
    }
  }

  function groupHead(group) {
    const counts = make("span", { class: "counts" }, states.map((name, at) => (group.counts[at] ? chip(at, "", group.counts[at]) : "")));
    if (filter.by === "host") {
      const host = hosts[group.key];
      const score = host.score.value === null || host.score.value === undefined ? "" : ` · score ${host.score.value}`;
      return [make("span", { class: "title" }, visible(host.name), make("span", { class: "quiet" }, score)), counts];
    }
    const rule = rules[group.key];
    const on = hosts.length > 1 ? make("span", { class: "quiet" }, ` · ${plural(group.hosts, "host")}`) : "";
    return [
      severity(rule, "tag"),
      make("code", { class: "code" }, visible(rule.code)),
      make("span", { class: "title" }, visible(rule.title), on),
      counts,
    ];
  }

  function groupBox(group) {
    const name = `${filter.by} ${group.key}`;
    const button = make("button", { class: "line", type: "button", "aria-expanded": "false" }, groupHead(group));
    const inside = make("div", { class: "inside", hidden: true });
    const change = (open) => {
      if (open) {
        opened.add(name);
        if (!inside.firstChild) fill(inside, group);
      } else opened.delete(name);
      toggle(button, inside, open);
    };
    button.addEventListener("click", () => change(inside.hidden));
    const box = make("div", { class: `group by-${filter.by}` }, make("h3", {}, button), inside);
    box.open = () => change(true);
    if (opened.has(name)) change(true);
    return box;
  }

  function groups(facets) {
    const found = new Map();
    walk((h, index, objects, collapsed) => {
      if (collapsed) return;
      const key = keyOf(h, index);
      let group = found.get(key);
      if (!group) found.set(key, (group = { key, counts: new Array(states.length).fill(0), hosts: 0, last: -1 }));
      group.counts[stateOf(shapes[index])] += objects.length;
      if (group.last !== h) {
        group.last = h;
        group.hosts += 1;
      }
    }, facets);
    const sorted = [...found.values()];
    if (filter.by === "host") return sorted; // the hosts come in order
    const worst = (group) => group.counts.findIndex((count) => count);
    return sorted.sort((one, other) =>
      worst(one) - worst(other) || severityOf(rules[one.key]) - severityOf(rules[other.key]) ||
      other.counts[worst(other)] - one.counts[worst(one)] || one.key - other.key);
  }

  function show() {
    const facets = { state: new Array(states.length).fill(0), severity: new Array(severities.length).fill(0) };
    const found = groups(facets);
    for (const box of form.querySelectorAll("input[type=checkbox]")) {
      const known = box.name === "state" ? states : severities;
      box.nextElementSibling.querySelector("output").textContent = facets[box.name][known.indexOf(box.value)].toLocaleString("en");
    }
    const total = found.reduce((sum, group) => sum + group.counts.reduce((one, other) => one + other), 0);
    byId("result").textContent = total
      ? `${plural(total, "finding")} of ${plural(found.length, filter.by)}`
      : "No finding is in this selection.";
    if (found.length === 1) opened.add(`${filter.by} ${found[0].key}`);
    list.replaceChildren();
    append(list, found, groupBox);
  }

  function refilter(step) {
    keepInFragment(step);
    showFilter();
    show();
  }

  function only(change) {
    filter = { ...defaults(), ...change };
    refilter(true);
    byId("findings").scrollIntoView();
    (list.querySelector(".line") || byId("text")).focus({ preventScroll: true });
  }

  let waiting = 0;
  function applyNow(step) {
    clearTimeout(waiting);
    waiting = 0;
    keepInFragment(step);
    show();
  }
  form.addEventListener("input", (event) => {
    const field = event.target;
    if (field.type === "checkbox") filter[field.name][field.checked ? "add" : "delete"](field.value);
    else filter[field.id] = field.value;
    clearTimeout(waiting);
    if (field.type === "search") waiting = setTimeout(applyNow, 120, false);
    else applyNow(true);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    filter = defaults();
    refilter(true);
  });
  window.addEventListener("popstate", () => {
    if (readFragment()) {
      showFilter();
      show();
    }
  });

  // ------------------------------------------------------------------ the fleet's table

  const matrix = byId("matrix");
  const rowHosts = new Map();

  function setUpMatrix() {
    const rows = [...matrix.tBodies[0].rows];
    rows.forEach((row, at) => rowHosts.set(row, hosts[at])); // both come in the same order
    matrix.setAttribute("role", "grid");
    if (rows.length) rows[0].cells[0].tabIndex = 0;
    const all = byId("all-hosts");
    if (rows.length > 25) {
      all.hidden = false;
      all.textContent = `Show all ${rows.length} hosts`;
      all.addEventListener("click", () => {
        matrix.classList.add("whole");
        all.remove();
        matrix.tBodies[0].rows[25].cells[0].focus();
      });
    } else matrix.classList.add("whole");
    for (const head of matrix.querySelectorAll("th[data-sort]")) {
      const button = make("button", { type: "button", title: `Sort by ${head.dataset.sort}` }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const score = (row) => rowHosts.get(row).score.value ?? -1;
        const order = head.dataset.sort === "score"
          ? (one, other) => score(one) - score(other)
          : (one, other) => (rowHosts.get(one).name < rowHosts.get(other).name ? -1 : 1);
        matrix.tBodies[0].append(...[...rows].sort(order));
        for (const other of matrix.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", "ascending");
      });
    }
    const activate = (cell) => {
      const host = rowHosts.get(cell?.parentElement);
      if (!host) return;
      const collapsed = cell.classList.contains("pass") || cell.classList.contains("not_applicable");
      const change = { host: host.name, category: cell.dataset.category || "", by: "host" };
      only(collapsed ? { ...change, state: new Set(states) } : change);
    };
    matrix.addEventListener("click", (event) => {
      const cell = event.target.closest("tbody .cell, tbody .host");
      if (cell) activate(cell);
    });
    matrix.addEventListener("mouseover", (event) => {
      const cell = event.target.closest("td[aria-label]");
      if (cell && !cell.title) cell.title = cell.getAttribute("aria-label");
    });
    matrix.addEventListener("keydown", (event) => {
      const cell = event.target.closest("tbody th, tbody td");
      if (!cell || event.altKey || event.ctrlKey || event.metaKey) return;
      const row = cell.parentElement;
      const places = [...row.cells].filter((one) => one.matches(".host, .cell"));
      const at = places.indexOf(cell);
      const beside = (other) => {
        if (!other || getComputedStyle(other).display === "none") return null;
        return [...other.cells].find((one) => one.cellIndex === cell.cellIndex && one.matches(".host, .cell")) || other.cells[0];
      };
      const next = {
        ArrowRight: () => places[at + 1],
        ArrowLeft: () => places[at - 1],
        ArrowDown: () => beside(row.nextElementSibling),
        ArrowUp: () => beside(row.previousElementSibling),
        Home: () => places[0],
        End: () => places[places.length - 1],
      }[event.key];
      if (next) {
        event.preventDefault();
        const target = next();
        if (!target) return;
        matrix.querySelector("[tabindex='0']")?.removeAttribute("tabindex");
        target.tabIndex = 0;
        target.focus();
      } else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        activate(cell);
      }
    });
  }

  // ------------------------------------------------------------------ the keyboard

  const help = byId("help");
  const lines = () => [...list.querySelectorAll(".line")].filter((line) => line.getClientRects().length);

  function go(step) {
    const all = lines();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    const target = at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1);
    all[target].focus({ preventScroll: true });
    all[target].scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || help.open) return;
    const field = event.target.closest("input, select, textarea");
    const typing = field && field.type !== "checkbox";
    const inList = list.contains(event.target) && event.target.classList.contains("line");
    const act = {
      "/": () => byId("text").select(),
      "?": () => help.showModal(),
      j: () => go(1),
      k: () => go(-1),
      ArrowDown: () => go(1),
      ArrowUp: () => go(-1),
      Home: () => go(-Infinity),
      End: () => go(Infinity),
    }[event.key];
    if (typing) {
      const leaves = field.id === "text" ? ["Enter", "ArrowDown"] : field.id === "host" ? ["Enter"] : [];
      if (event.key === "Escape") field.blur();
      else if (leaves.includes(event.key)) {
        if (waiting) applyNow(false); // else the lines would be made anew under the focus
        go(1);
      } else return;
      event.preventDefault();
    } else if (act && (event.key.length === 1 || inList)) {
      event.preventDefault();
      act();
    }
  });
  byId("keys").addEventListener("click", () => help.showModal());

  // ------------------------------------------------------------------ paper

  let before = null;
  window.addEventListener("beforeprint", () => {
    before = opened;
    opened = new Set(opened);
    let left = PRINTED;
    for (const box of list.querySelectorAll(".group")) {
      if (left <= 0) break;
      box.open();
      for (const one of [...box.querySelectorAll(".entry")].slice(0, left)) {
        one.open();
        left -= 1;
      }
    }
  });
  window.addEventListener("afterprint", () => {
    opened = before || opened;
    show();
  });

  // ------------------------------------------------------------------ begin

  for (const tile of document.querySelectorAll(".tiles li")) {
    const button = make("button", { type: "button" }, ...tile.childNodes);
    button.addEventListener("click", () => only({ state: new Set([tile.className]) }));
    tile.append(button);
  }
  byId("hosts").append(...hosts.map((host) => make("option", { value: plain(host.name) })));
  setUpMatrix();
  readFragment();
  form.hidden = false;
  showFilter();
  show();
})();
