// What the widgets share: elements, controls with labels, numbers as text, and the host for pages without a kernel.

const create = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value !== true ? value : name.startsWith("aria-") ? "true" : "");
  }
  node.append(...children);
  return node;
};
const html = (tag, attributes = {}, ...children) => create(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  create(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// A range input with its label and its value as text. Returns the element; `.show(value)` moves it from outside.
function slider(label, { min, max, step, value, text = (v) => v }, change) {
  const input = html("input", { type: "range", min, max, step, value });
  const output = html("output", { "aria-live": "off" }, String(text(value))); // the input says it already
  const whole = html("label", { class: "rk-slider" }, html("span", {}, label), input, output);
  whole.input = input;
  whole.show = (v) => {
    input.value = v;
    output.textContent = text(v);
    input.setAttribute("aria-valuetext", text(v));
  };
  input.addEventListener("input", () => {
    whole.show(input.valueAsNumber);
    change(input.valueAsNumber);
  });
  whole.show(value);
  return whole;
}

// Radio buttons (or, with several, check boxes) under one legend. Radio names are told apart by the widget's own form.
function choice(legend, options, chosen, change, several = false) {
  const name = legend.replace(/\W/g, "-");
  const boxes = options.map((value) => {
    const checked = several ? chosen.includes(value) : value === chosen;
    return html("input", { type: several ? "checkbox" : "radio", name, value, checked });
  });
  const values = () => boxes.filter((b) => b.checked).map((b) => b.value);
  for (const box of boxes) box.addEventListener("change", () => change(several ? values() : box.value));
  const labels = boxes.map((box) => html("label", {}, box, " ", box.value));
  return html("fieldset", {}, html("legend", {}, legend), ...labels);
}

function menu(label, options, chosen, change) {
  const items = options.map((text, i) => html("option", { value: i, selected: i === chosen }, text));
  const select = html("select", { onchange: () => change(Number(select.value)) }, ...items);
  return html("label", { class: "rk-menu" }, html("span", {}, label), select);
}

// A button that saves rows (the first: the columns' names) as a CSV file; they are asked for when it is pressed.
function download(name, rows) {
  const cell = (v) => (/[",\n]/.test(v) ? `"${String(v).replaceAll('"', '""')}"` : v);
  const save = () => {
    const text = rows().map((row) => row.map(cell).join(",") + "\r\n").join("");
    const href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    html("a", { href, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  };
  return html("button", { type: "button", onclick: save }, `Download ${name}`);
}

// A form, so that its radio buttons are its own; it is never sent. A second one of a name gets a number.
function root(el, label, ...children) {
  el.classList.add("rk-widget");
  const same = document.querySelectorAll(`.rk-widget form[aria-label^="${label}"]`).length;
  const form = html("form", { "aria-label": same ? `${label} ${same + 1}` : label, onsubmit: (event) => event.preventDefault() }, ...children);
  el.replaceChildren(form);
  return form;
}

const number = (p) => (p === 0 ? "0" : p >= 0.001 ? p.toPrecision(3) : p.toExponential(1).replaceAll("-", "−"));

// Greys have no hue to tell them apart: in the dark they change places.
const ink = (colour) => (/^#(..)\1\1$/.test(colour) ? "rk-grey" : "");

// A probability as a share of a bar's length; the logarithmic scale begins at one in a million.
const length = (p, scale) => 100 * (scale === "logarithmic" ? Math.max(0, 1 + Math.log10(Math.max(p, 1e-9)) / 6) : p);

// Token text with its blanks visible.
const visible = (text) => text.replace(/^ /, "␣").replace(/\n/g, "⏎") || "∅";

// One model at one position: the true token's probability and rank, entropy, KL to the oracle, and the k likeliest tokens.
function card(name, model, position, token, k, scale, colour) {
  const rows = model.top[position].slice(0, k).map(([text, p], i) => ({ text, p, rank: i + 1 }));
  const rank = model.true_rank[position], p = model.true_probability[position];
  if (rank > rows.length) rows.push({ text: token, p, rank });
  const items = rows.map((row) => {
    const right = row.rank === rank;
    return html("li", { class: right ? "rk-true" : null },
      html("span", { class: "rk-text" }, visible(row.text), right ? html("b", {}, " ✓ true") : "",
        row.rank > k ? ` (rank ${row.rank})` : ""),
      html("span", { class: "rk-p" }, number(row.p)),
      html("i", { class: "rk-bar", style: `--c: ${colour}; width: ${length(row.p, scale)}%` }));
  });
  const kl = model.kl_to_oracle?.[position];
  const facts = [["true token", `${number(p)}, rank ${rank}`], ["entropy", `${number(model.entropy[position])} nats`],
    ["KL to oracle", kl === undefined ? "not recorded" : `${number(kl)} nats`]];
  return html("div", { class: `rk-card ${ink(colour)}`, role: "group", "aria-label": name, style: `--c: ${colour}` },
    html("strong", {}, html("i", { class: "rk-bar" }), name),
    html("dl", {}, ...facts.flatMap(([term, value]) => [html("dt", {}, term), html("dd", {}, value)])),
    html("ol", {}, ...items));
}

// The static host: a model that holds the state and tells its listeners, as anywidget's does.
function mount(widget, key, state) {
  for (const el of document.querySelectorAll(`[data-rk="${key}"]:not([data-live])`)) {
    const values = structuredClone(state), listeners = {};
    el.dataset.live = "";
    widget.render({
      el,
      model: {
        get: (name) => values[name],
        set(name, value) {
          values[name] = value;
          for (const listener of listeners[`change:${name}`] ?? []) listener();
        },
        on: (event, listener) => (listeners[event] ??= []).push(listener),
        off: (event, listener) => (listeners[event] = listeners[event]?.filter((l) => l !== listener)),
        save_changes() {},
      },
    });
  }
}
