// Scores of many runs, drawn as the reader chooses; the nearest point says whose it is.

const FLOOR = 1e-12;
const LEFT = 56, TOP = 14, BOTTOM = 330;

// A field's values as a share of its axis, and what is written at it. "p" is the paper's double scale: logarithmic
// up to 0.05 and linear above.
const SCALES = {
  p: () => {
    const share = (p) => (p < 0.05 ? Math.log10(Math.max(p, FLOOR) / FLOOR) / Math.log10(0.05 / FLOOR) : 1 + (p - 0.05) / 0.95) / 2;
    return { share, ticks: [[1e-12, "≤10⁻¹²"], [1e-9, "10⁻⁹"], [1e-6, "10⁻⁶"], [1e-3, "10⁻³"], ...[0.05, 0.25, 0.5, 0.75, 1].map((p) => [p, p])] };
  },
  share: () => ({ share: (v) => v, ticks: [0, 0.2, 0.4, 0.6, 0.8, 1].map((v) => [v, v]) }),
  number: (values) => {
    const all = [...new Set(values)].sort((a, b) => a - b), [low, high] = [all[0], all.at(-1)];
    return { share: (v) => 0.02 + (0.96 * (v - low)) / (high - low || 1), ticks: all.map((v) => [v, v]) };
  },
  tokens: (values, names) => ({ share: (i) => (i + 0.5) / names.length, ticks: names.map((name, i) => [i, visible(name)]) }),
};

// A mark is a polygon (corners, turn, depth of the notches) or, without one, a circle; a retain term leaves it open.
const MARKS = { FKLU: [4, 45, 1], GA: [3, 180, 1], NPO: [3, 0, 1], DPO: [4, 0, 1], IDK: [4, 0, 0.4], TA: [4, 45, 0.4], teacher: [5, 0, 0.45], original: [6, 0, 1] };
function mark(name, x, y, size, { ink, ...attributes }) {
  const [family, retain] = name.split("+"), form = MARKS[family];
  const shape = { class: `rk-mark rk-${retain ?? "alone"} ${ink}`, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, ...attributes };
  if (!form) return svg("circle", { r: size * 0.8, ...shape });
  const [corners, turn, depth] = form, steps = depth < 1 ? 2 * corners : corners;
  const points = Array.from({ length: steps }, (_, i) => {
    const angle = ((360 * i) / steps + turn - 90) * (Math.PI / 180), r = size * 1.1 * (depth < 1 && i % 2 ? depth : 1);
    return `${(r * Math.cos(angle)).toFixed(1)},${(r * Math.sin(angle)).toFixed(1)}`;
  });
  return svg("polygon", { points: points.join(" "), ...shape });
}

const RULES = {
  peak: (points) => points.reduce((best, p) => (p["forget quality"] > best["forget quality"] ? p : best)),
  last: (points) => points.at(-1),
  product: (points) => points.reduce((best, p) => {
    const score = (q) => q["forget quality"] * (q["model utility"] ?? 0);
    return score(p) > score(best) ? p : best;
  }),
};

function render({ model, el }) {
  const series = model.get("series"), views = model.get("views"), fields = model.get("fields"), colours = model.get("colours");
  const colour = (name) => colours[name.split("+")[0]];
  const names = [...new Set(series.map((s) => s.name))];
  const change = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const view = () => views[model.get("view")];

  // What a run was done on: a menu for each that differs between the runs.
  const told = Object.keys(series[0].of).map((key) => [key, [...new Set(series.map((s) => String(s.of[key])))]]);
  const menus = told.filter(([, values]) => values.length > 1).map(([key, values]) => {
    const options = key === "seed" ? ["all", ...values] : values, now = model.get("chosen")[key];
    return menu(key, options, Math.max(0, options.indexOf(String(now))), (i) => change("chosen", { ...model.get("chosen"), [key]: options[i] }));
  });

  const asked = (of) => Object.entries(model.get("chosen")).every(([key, value]) => value === "all" || !(key in of) || String(of[key]) === String(value));

  // The runs asked for, each with the points to draw: all its epochs, or those that the rule reports.
  function drawn() {
    const { rule, by } = view(), shown = model.get("shown");
    return series.filter((s) => shown.includes(s.name) && asked(s.of)).map((s) => {
      const columns = Object.entries(s.points);
      const all = columns[0][1].map((_, i) => Object.fromEntries(columns.map(([field, values]) => [field, values[i]])));
      if (!rule) return { ...s, all };
      const values = [...new Set(all.map((p) => p[by]))]; // without `by` the whole run reports one point
      return { ...s, all: values.map((v) => RULES[model.get("rule")](all.filter((p) => p[by] === v))) };
    });
  }

  const plots = html("div", { class: "rk-charts" });
  const width = () => (plots.clientWidth && plots.clientWidth < 500 ? 400 : 640); // on a phone the letters keep their size
  const facts = html("p", { class: "rk-facts rk-told" }); // not live: a focused mark says the same
  const say = (field, v) => {
    if (v == null) return "not scored";
    if (fields[field] === "tokens") return visible(model.get("tokens")[v]);
    return fields[field] === "number" ? String(v) : number(v);
  };
  const about = (s, p) => [s.name, ...Object.entries(s.of).map(([k, v]) => (k === "seed" ? `seed ${v}` : v)), ...Object.keys(p).map((f) => `${f} ${say(f, p[f])}`)].join(", ");

  // A method's seeds look alike: each line ends in its own, unless two would be written over one another.
  const seeds = (runs, line) => line && new Set(runs.map((s) => s.of.seed)).size > 1;
  function ends(lines) {
    const last = lines.map((points) => points.at(-1)).filter(Boolean);
    return last.filter(({ at: [x, y] }) => last.filter(({ at }) => Math.hypot(at[0] - x, at[1] - y) < 11).length === 1)
      .map(({ s, at: [x, y] }) => svg("text", { "aria-hidden": true, x: x + 6, y: y + 4 }, String(s.of.seed)));
  }

  function chart(runs, x, y, line) {
    const scale = (f) => SCALES[fields[f]](series.flatMap((s) => s.points[f]), model.get("tokens"));
    const [across, up] = [scale(x), scale(y)], right = width() - 12, slanted = fields[x] === "tokens";
    const px = (v) => LEFT + (right - LEFT) * across.share(v), py = (v) => BOTTOM - (BOTTOM - TOP) * up.share(v);
    // The points that have both values, in unbroken rows: each is a line.
    const pieces = (s) => s.all.reduce((rows, p) => {
      p[x] != null && p[y] != null ? rows.at(-1).push({ s, p, at: [px(p[x]), py(p[y])] }) : rows.push([]);
      return rows;
    }, [[]]);
    const scored = (s) => pieces(s).flat();
    const points = runs.flatMap(scored);
    points.sort((a, b) => a.at[0] - b.at[0] || b.at[1] - a.at[1]);
    const every = Math.ceil(across.ticks.length / (width() / 32));
    const tag = svg("text", { class: "rk-tag" });
    const marks = points.map(({ s, p, at }, i) => mark(s.name, ...at, line ? 4 : 7, {
      ink: ink(colour(s.name)), style: `--c: ${colour(s.name)}`, role: "option", "aria-selected": "false", tabindex: i ? -1 : 0, "aria-label": about(s, p) }));
    const picture = svg("svg", { viewBox: `0 0 ${width()} ${slanted ? 400 : 378}`, class: "rk-chart", role: "group", "aria-label": `${y} over ${x}` },
      svg("g", { "aria-hidden": true }, ...up.ticks.flatMap(([v, text]) => [
        svg("line", { class: v === 0.05 ? "rk-here" : "rk-grid", x1: LEFT, x2: right, y1: py(v), y2: py(v) }),
        svg("text", { x: LEFT - 10, y: py(v) + 4, "text-anchor": "end" }, String(text))]),
      ...across.ticks.filter((_, i) => i % every === 0).map(([v, text]) => svg("text", slanted
        ? { transform: `translate(${px(v)} ${BOTTOM + 14}) rotate(-50)`, "text-anchor": "end" }
        : { x: px(v), y: BOTTOM + 17, "text-anchor": "middle" }, String(text)))),
      svg("text", { class: "rk-title", x: right, y: slanted ? 394 : BOTTOM + 38, "text-anchor": "end" }, x),
      svg("text", { class: "rk-title", transform: `translate(12 ${TOP}) rotate(-90)`, "text-anchor": "end" }, y),
      ...(line ? runs.flatMap((s) => pieces(s).map((row) => svg("polyline", { class: `rk-line rk-${s.name.split("+")[1] ?? "alone"} ${ink(colour(s.name))}`, style: `--c: ${colour(s.name)}`,
        points: row.map(({ at }) => at.map((v) => v.toFixed(1)).join()).join(" ") }))) : []),
      ...(seeds(runs, line) ? ends(runs.map(scored)) : []),
      svg("g", { role: "listbox", "aria-label": `${y} over ${x}, ${points.length} points; arrow keys go from one to the next` }, ...marks),
      tag);
    let now = 0;
    const point = (i) => {
      if (!points[i]) return;
      marks[now].setAttribute("tabindex", -1);
      marks[now].setAttribute("aria-selected", false);
      now = i;
      marks[i].setAttribute("tabindex", 0);
      marks[i].setAttribute("aria-selected", true);
      const { s, p, at } = points[i], far = at[0] > right - 130;
      for (const [k, v] of Object.entries({ x: at[0] + (far ? -11 : 11), y: Math.max(22, at[1] - 9), "text-anchor": far ? "end" : "start" })) tag.setAttribute(k, v);
      const others = points.filter((o, j) => j !== i && Math.hypot(o.at[0] - at[0], o.at[1] - at[1]) <= 3); // one over another
      tag.textContent = ("seed" in s.of ? `${s.name}, seed ${s.of.seed}` : s.name) + (others.length ? ` and ${others.length} more` : "");
      facts.textContent = `${[points[i], ...others].map((o) => about(o.s, o.p)).join("; ")}.`;
    };
    const nearby = (event) => {
      const box = picture.getBoundingClientRect(), scale = width() / box.width;
      const [mx, my] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      const away = points.map(({ at }) => Math.hypot(at[0] - mx, at[1] - my)), nearest = away.indexOf(Math.min(...away));
      if (away[nearest] < 40 && (nearest !== now || !tag.textContent)) point(nearest);
    };
    for (const kind of ["pointermove", "pointerdown"]) picture.addEventListener(kind, nearby); // a finger only presses
    marks.forEach((m, i) => m.addEventListener("focus", () => point(i)));
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -points.length, End: points.length }[event.key];
      if (!step) return;
      event.preventDefault();
      marks[Math.max(0, Math.min(points.length - 1, now + step))].focus();
    });
    return picture;
  }

  const rules = choice("Reported epoch", Object.keys(RULES), model.get("rule"), (rule) => change("rule", rule));
  function update() {
    const { x, y, line, rule } = view(), runs = drawn();
    rules.hidden = !rule;
    plots.replaceChildren(...y.map((name) => chart(runs, x, name, line)));
    const ended = seeds(runs, line) ? " The number at a line's end is its seed." : "";
    facts.textContent = runs.length ? `Point at a mark, or go through them with the arrow keys.${ended}` : "Nothing is recorded of this choice, or no method is chosen.";
    counted.textContent = `${runs.length} of ${series.length} ${"seed" in series[0].of ? "runs" : "models"} drawn.` + (runs.some((s) => s.points["model utility"]?.includes(null))
      ? " Not every epoch's utility was scored; “product” chooses among those that were." : "");
  }

  function table() {
    const rule = view().rule ? { rule: model.get("rule") } : {}, columns = Object.keys(series[0].points);
    return [["name", ...Object.keys({ ...series[0].of, ...rule }), ...columns],
      ...drawn().flatMap((s) => s.all.map((p) => [s.name, ...Object.values({ ...s.of, ...rule }), ...columns.map((c) => p[c] ?? "")]))];
  }

  const who = choice(model.get("noun"), names, model.get("shown"), (shown) => change("shown", shown), true);
  who.querySelectorAll("label").forEach((label, i) => label.append(svg("svg", { viewBox: "-9 -9 18 18", class: "rk-swatch", style: `--c: ${colour(names[i])}`, "aria-hidden": true }, mark(names[i], 0, 0, 6, { ink: ink(colour(names[i])) }))));
  const set = (text, to) => html("button", { type: "button", onclick: () => {
    who.querySelectorAll("input").forEach((box) => (box.checked = to));
    change("shown", to ? names : []);
  } }, text);
  const counted = html("span", { class: "rk-facts", "aria-live": "polite" });
  const how = views.length > 1 ? [choice("Draw", views.map((v) => v.name), view().name, (name) => change("view", views.findIndex((v) => v.name === name)))] : [];
  root(el, "Scores",
    html("div", { class: "rk-controls" }, ...menus, ...how, rules), who,
    html("div", { class: "rk-controls" }, html("div", { class: "rk-buttons" }, set("All", true), set("None", false)), counted),
    plots, facts, html("div", {}, download("scores.csv", table)));
  for (const name of ["view", "rule", "shown", "chosen"]) model.on(`change:${name}`, update);
  update();
  let drawnAt = width();
  new ResizeObserver(() => {
    if (width() === drawnAt) return;
    drawnAt = width();
    update();
  }).observe(plots);
}

export default { render };
