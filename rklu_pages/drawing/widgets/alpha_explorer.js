// Figure 5 as a slider: both scores against alpha, and at each alpha the teacher, the student and what it answers.

const FLOOR = 1e-12;

// The paper's double scale for p-values: logarithmic up to 0.05, linear above; both halves 0 to 1 and 1 to 2.
const doubled = (p) => (p < 0.05 ? Math.log10(Math.max(p, FLOOR) / FLOOR) / Math.log10(0.05 / FLOOR) : 1 + (p - 0.05) / 0.95);

function panel(title, rows, name, here, colour, height, ticks) {
  const [left, right, top, bottom] = [44, 334, 26, 150], alphas = rows.map((row) => row.alpha);
  const [first, last] = [Math.min(...alphas), Math.max(...alphas)];
  const x = (a) => left + 8 + ((right - left - 16) * (a - first)) / (last - first || 1);
  const y = (v) => bottom - (bottom - top) * height(v);
  const parts = ticks.flatMap(([value, text]) => [
    svg("line", { class: "rk-grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
    svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, text),
  ]);
  const points = rows.map((row) => `${x(row.alpha).toFixed(1)},${y(row[name]).toFixed(1)}`).join(" ");
  const style = `--c: ${colour}`;
  return svg("svg", { viewBox: "0 0 340 176", role: "img", style,
    "aria-label": `${title}: ${rows.map((row) => `${number(row[name])} at α ${row.alpha}`).join(", ")}` },
    ...parts,
    svg("line", { class: "rk-here", x1: x(rows[here].alpha), x2: x(rows[here].alpha), y1: top, y2: bottom }),
    svg("polyline", { class: "rk-line", points }),
    ...rows.map((row, i) => svg("circle", { class: "rk-point", cx: x(row.alpha), cy: y(row[name]), r: i === here ? 6 : 3 })),
    ...rows.map((row) => svg("text", { x: x(row.alpha), y: bottom + 16, "text-anchor": "middle" }, String(row.alpha))),
    svg("text", { x: left, y: 14, class: "rk-title" }, title));
}

function render({ model, el }) {
  const colours = model.get("colours"), rows = () => model.get("rows"), tokens = () => model.get("tokens");
  const change = (name, to) => {
    model.set(name, to);
    model.save_changes();
  };
  const plots = html("div", { class: "rk-plots" }), cards = html("div", { class: "rk-cards" });
  const facts = html("p", { class: "rk-facts", "aria-live": "polite" }), answer = html("p", { class: "rk-said" });
  const alpha = slider("α, strength of the teacher",
    { min: 0, max: rows().length - 1, step: 1, value: model.get("index"), text: (i) => String(rows()[i].alpha) },
    (i) => change("index", i));
  const asked = html("div", { style: "display: contents" });
  let position;

  // What depends on the question: its text and the reach of its answer. A kernel may ask another.
  function ask() {
    const last = tokens().length - 1, say = (i) => `${i + 1} of ${last + 1}: ${visible(tokens()[i])}`;
    if (last < 0) return update();
    position = slider("Position in the true answer",
      { min: 0, max: last, step: 1, value: model.get("position"), text: say }, (i) => change("position", i));
    asked.replaceChildren(html("p", {}, html("b", {}, model.get("question")), ` The truth: “${model.get("answer")}”`), position);
    update();
  }

  function update() {
    const here = model.get("index"), at = model.get("position"), row = rows()[here];
    const shown = Object.entries(row.models ?? {}), method = shown.at(-1)?.[0] ?? "RKLU";  // the teacher stands first
    const coloured = (name) => colours[name.split("+")[0]], colour = coloured(method);
    alpha.show(here);
    position?.show(at);
    plots.replaceChildren(
      panel("forget quality (KS p-value)", rows(), "forget_quality", here, colour, (v) => doubled(v) / 2,
        [[1e-12, "≤10⁻¹²"], [1e-6, "10⁻⁶"], [0.05, "0.05"], [0.5, "0.5"], [1, "1"]]),
      panel("model utility", rows(), "model_utility", here, colour, (v) => v, [0, 0.5, 1].map((v) => [v, String(v)])));
    facts.textContent = `α = ${row.alpha}: forget quality ${number(row.forget_quality)}, model utility ` +
      `${number(row.model_utility)}, at epoch ${row.epoch}.` +
      (shown.length ? " The cards below are of the model after its last epoch." : "");
    cards.replaceChildren(...shown.map(([name, m]) => card(name, m, at, tokens()[at], 5, "linear", coloured(name))));
    answer.textContent = shown.length ? `${method} answers after its last epoch: “${row.answer}”`
      : "No distributions are recorded at this α.";
  }

  const table = () => [["alpha", "epoch", "forget quality", "model utility", "answer"],
    ...rows().map((row) => [row.alpha, row.epoch, row.forget_quality, row.model_utility, row.answer ?? ""])];
  root(el, "Alpha explorer", alpha, plots, facts, asked, cards, answer, html("div", {}, download("alpha.csv", table)));
  for (const name of ["index", "position"]) model.on(`change:${name}`, update);
  for (const name of ["rows", "tokens", "question"]) model.on(`change:${name}`, ask);
  ask();
}

export default { render };
