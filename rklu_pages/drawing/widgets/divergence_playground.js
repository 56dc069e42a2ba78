// One distribution over a few tokens: Eq. 1 builds the teacher, two students descend, by reverse and by forward KL.

const add = (values) => values.reduce((a, b) => a + b, 0);

export function logSoftmax(logits) {
  const top = Math.max(...logits);
  const log = top + Math.log(add(logits.map((l) => Math.exp(l - top))));
  return logits.map((l) => l - log);
}

// Eq. 1; `shift` is a constant added to every augmented logit.
export const teacherLogits = (original, augmented, alpha, shift = 0) =>
  original.map((l, i) => l - alpha * Math.max(0, augmented[i] + shift - l));

// KL(p || q) in nats, from logits; never below zero, where rounding may lead.
export function kl(p, q) {
  const logP = logSoftmax(p), logQ = logSoftmax(q);
  return Math.max(0, add(logP.map((l, i) => (Math.exp(l) > 0 ? Math.exp(l) * (l - logQ[i]) : 0))));
}

// The gradient of either divergence by the student's logits, as in the book's "Why reverse".
export function gradient(kind, student, teacher) {
  const p = logSoftmax(student), t = logSoftmax(teacher);
  if (kind === "forward") return p.map((l, i) => Math.exp(l) - Math.exp(t[i]));
  const value = kl(student, teacher);
  return p.map((l, i) => Math.exp(l) * (l - t[i] - value));
}

export const descend = (kind, student, teacher, rate) => {
  const g = gradient(kind, student, teacher);
  return student.map((z, i) => z - rate * g[i]);
};

const STUDENTS = { reverse: "RKLU", forward: "FKLU" };
const FLOOR = 1e-8; // the chart's lowest probability
const LIMIT = 10; // a handle's largest logit
const LAST = 1000; // the step after which "Play" ends

function chart(history, teacher, colours, token) {
  const [left, right, top, bottom] = [44, 350, 8, 168];
  const steps = Math.max(50, history.reverse.length - 1);
  const x = (i) => left + ((right - left) * i) / steps;
  const y = (p) => top + ((bottom - top) * Math.log10(Math.max(p, FLOOR))) / Math.log10(FLOOR);
  const parts = [1, 1e-2, 1e-4, 1e-6, 1e-8].flatMap((p, i) => [
    svg("line", { class: "rk-grid", x1: left, x2: right, y1: y(p), y2: y(p) }),
    svg("text", { x: left - 5, y: y(p) + 4, "text-anchor": "end" }, i ? `${p === FLOOR ? "≤" : ""}10⁻${"⁰¹²³⁴⁵⁶⁷⁸"[2 * i]}` : "1"),
  ]);
  parts.push(svg("text", { x: right, y: top + 10, "text-anchor": "end" }, `probability of ${token}`));
  parts.push(svg("text", { x: left, y: bottom + 16 }, "step 0"));
  parts.push(svg("text", { x: right, y: bottom + 16, "text-anchor": "end" }, String(steps)));
  const line = { class: "rk-line rk-dashed", style: `--c: ${colours.teacher}` };
  parts.push(svg("line", { ...line, x1: left, x2: right, y1: y(teacher), y2: y(teacher) }));
  for (const [kind, name] of Object.entries(STUDENTS)) {
    const points = history[kind].map((p, i) => `${x(i).toFixed(1)},${y(p).toFixed(1)}`).join(" ");
    parts.push(svg("polyline", { class: `rk-line rk-${kind}`, style: `--c: ${colours[name]}`, points }));
  }
  const ends = Object.keys(STUDENTS).map((kind) => `${kind} ${number(history[kind].at(-1))}`).join(", ");
  const label = `Probability of ${token} over ${history.reverse.length - 1} steps: now ${ends}; teacher ${number(teacher)}`;
  return svg("svg", { viewBox: "0 0 360 190", role: "img", "aria-label": label }, ...parts);
}

function render({ model, el }) {
  const tokens = model.get("tokens"), colours = model.get("colours");
  const students = {}, history = {};
  let watched = 0, scale = "linear", timer = null, teacher;

  const probabilities = (logits) => logSoftmax(logits).map(Math.exp);
  const change = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const restart = () => {
    for (const kind in STUDENTS) students[kind] = [...model.get("original")];
    for (const kind in STUDENTS) history[kind] = [probabilities(students[kind])];
    update();
  };
  const opened = ["original", "augmented", "alpha", "shift", "rate"].map((name) => [name, model.get(name)]);
  const reset = () => {
    play(false);
    for (const [name, value] of opened) change(name, value);
    restart();
    go(model.get("steps"));
  };
  const go = (count) => {
    for (let i = 0; i < count; i++)
      for (const kind in STUDENTS) {
        students[kind] = descend(kind, students[kind], teacher, model.get("rate"));
        history[kind].push(probabilities(students[kind]));
      }
    update();
  };
  const play = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(() => (el.isConnected && history.reverse.length <= LAST ? go(1) : play(false)), 50) : null;
    playing.textContent = on ? "Pause" : "Play";
    facts.setAttribute("aria-live", on ? "off" : "polite"); // twenty announcements a second help nobody
  };

  const series = { original: "original", teacher: "teacher", reverse: "reverse-KL student", forward: "forward-KL student" };
  const colour = (kind) => `--c: ${colours[STUDENTS[kind] ?? kind]}`;
  const rows = tokens.map((token, i) => {
    const logit = (name) => {
      const input = html("input", { type: "range", min: -LIMIT, max: LIMIT, step: 0.1, class: `rk-${name}` });
      input.setAttribute("aria-label", `${name} logit of ${token}`);
      input.addEventListener("input", () => change(name, model.get(name).with(i, input.valueAsNumber)));
      return input;
    };
    const inputs = { original: logit("original"), augmented: logit("augmented") };
    const rise = html("span", { class: "rk-rise" });
    const bars = Object.keys(series).map((kind) => html("i", { class: `rk-bar rk-${kind}`, style: colour(kind) }));
    const picture = html("div", { class: "rk-bars", role: "img" }, ...bars);
    const pair = html("div", { class: "rk-pair" }, inputs.original, rise, inputs.augmented);
    const ends = html("small", {});
    const row = html("div", { class: "rk-row" }, html("div", {}, html("b", {}, token), ends), pair, picture);
    return { row, inputs, ends, rise, bars, picture };
  });

  const key = (kind) => html("li", {}, html("i", { class: `rk-bar rk-${kind}`, style: colour(kind) }), series[kind]);
  const alpha = slider("α, strength", { min: 0, max: 16, step: 0.5, value: model.get("alpha") }, (v) => change("alpha", v));
  const tenths = (v) => v.toFixed(1).replace("-", "−");
  const signed = (v) => (v > 0 ? `+${v}` : String(v).replace("-", "−"));
  const shift = slider(
    "c, added to every augmented logit",
    { min: -4, max: 4, step: 0.1, value: model.get("shift"), text: signed },
    (v) => change("shift", v),
  );
  const rate = slider("step size", { min: 0.1, max: 5, step: 0.1, value: model.get("rate") }, (v) => change("rate", v));
  const playing = html("button", { type: "button", onclick: () => play(timer === null) }, "Play");
  const button = (text, action) => html("button", { type: "button", onclick: action }, text);
  const plot = html("div", { class: "rk-plot" }), share = html("span", {});
  const facts = html("p", { class: "rk-facts", "aria-live": "polite" });

  function update() {
    const [original, augmented] = [model.get("original"), model.get("augmented")];
    const c = model.get("shift");
    teacher = teacherLogits(original, augmented, model.get("alpha"), c);
    const p = { original: probabilities(original), teacher: probabilities(teacher) };
    for (const kind in STUDENTS) p[kind] = probabilities(students[kind]);
    rows.forEach(({ row, inputs, ends, rise, bars, picture }, i) => {
      for (const name in inputs) {
        inputs[name].value = model.get(name)[i];
        inputs[name].setAttribute("aria-valuetext", tenths(model.get(name)[i]));
      }
      ends.textContent = `${tenths(original[i])} → ${tenths(augmented[i] + c)}`;
      const [from, to] = [original[i], augmented[i] + c].map((l) => (50 * (Math.min(LIMIT, Math.max(-LIMIT, l)) + LIMIT)) / LIMIT);
      rise.style.cssText = `--from: ${Math.min(from, to)}; --to: ${Math.max(from, to)}`;
      row.classList.toggle("rk-risen", to > from);
      Object.keys(series).forEach((kind, j) => (bars[j].style.width = `${length(p[kind][i], scale)}%`));
      const said = Object.keys(series).map((kind) => `${series[kind]} ${number(p[kind][i])}`);
      picture.setAttribute("aria-label", `${tokens[i]}: ${said.join(", ")}`);
      picture.title = said.join("\n");
    });
    share.textContent = `probabilities; mid-line: ${scale === "linear" ? "0.5" : "10⁻³"}`;
    plot.replaceChildren(
      chart({ reverse: history.reverse.map((q) => q[watched]), forward: history.forward.map((q) => q[watched]) },
        p.teacher[watched], colours, tokens[watched]),
    );
    facts.textContent =
      `After ${history.reverse.length - 1} steps: KL(student ‖ teacher) of the reverse student ` +
      `${number(kl(students.reverse, teacher))}, KL(teacher ‖ student) of the forward student ` +
      `${number(kl(teacher, students.forward))} nats. ${tokens[watched]}: reverse ${number(p.reverse[watched])}, ` +
      `forward ${number(p.forward[watched])}, teacher ${number(p.teacher[watched])}.` +
      (history.reverse.length > LAST ? ` “Play” ends after ${LAST} steps.` : "");
    alpha.show(model.get("alpha"));
    shift.show(c);
    rate.show(model.get("rate"));
  }

  function table() {
    const set = { alpha: model.get("alpha"), c: model.get("shift"), rate: model.get("rate"), steps: history.reverse.length - 1 };
    const logits = { original: model.get("original"), augmented: model.get("augmented"), teacher, ...students };
    const names = Object.keys(logits), columns = [...Object.values(logits), ...Object.values(logits).map(probabilities)];
    return [["token", ...Object.keys(set), ...names.map((name) => `${name} logit`), ...names.map((name) => `${name} probability`)],
      ...tokens.map((token, i) => [token, ...Object.values(set), ...columns.map((column) => column[i])])];
  }

  root(
    el,
    "Divergence playground",
    html("div", { class: "rk-controls" }, alpha, shift, rate),
    html("div", { class: "rk-row rk-head", "aria-hidden": true },
      html("span", {}, "token"),
      html("span", {}, "logits: ", html("i", { class: "rk-dot rk-original" }), " original, ",
        html("i", { class: "rk-dot rk-augmented" }), " augmented"),
      share),
    ...rows.map(({ row }) => row),
    html("ul", { class: "rk-key" }, html("li", {}, "from top to bottom:"), ...Object.keys(series).map(key)),
    html("div", { class: "rk-controls" },
      html("div", { class: "rk-buttons", role: "group", "aria-label": "Students" },
        button("Step", () => go(1)), button("10 steps", () => go(10)), playing,
        button("Students back to the start", () => (play(false), restart())), button("Reset all", reset)),
      choice("Bars", ["linear", "logarithmic"], scale, (v) => ((scale = v), update())),
      menu("Token in the chart", tokens, watched, (v) => ((watched = v), update()))),
    plot,
    facts,
    html("div", {}, download("divergence-playground.csv", table)),
  );
  // A moved logit of the original moves where the students start; anything else only moves their aim.
  model.on("change:original", restart);
  for (const name of ["augmented", "alpha", "shift", "rate"]) model.on(`change:${name}`, update);
  restart();
  go(model.get("steps"));
  return () => play(false);
}

export default { render };
