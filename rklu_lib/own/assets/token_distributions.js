// What several models would say next at each position of a true answer, side by side.

function render({ model, el }) {
  const colours = model.get("colours");
  const value = (name) => model.get(name);
  const change = (name, to) => {
    model.set(name, to);
    model.save_changes();
  };
  const places = html("div", { class: "rk-answer", role: "group", "aria-label": "Tokens of the true answer" });
  const cards = html("div", { class: "rk-cards" });
  const facts = html("p", { class: "rk-facts", "aria-live": "polite" });
  const [which, where, who] = [1, 2, 3].map(() => html("div", { class: "rk-slot" }));
  const content = () => value("questions")[value("question")];

  // A kernel may add questions.
  function list() {
    const texts = value("questions").map((q) => q.question);
    which.replaceChildren(menu("Question", texts, value("question"), (i) => change("question", i)));
    ask();
  }

  // What depends on the question: the answer's tokens, the slider's reach, the models that were recorded.
  function ask() {
    const { tokens, models } = content();
    which.querySelector("select").value = value("question");
    if (value("position") >= tokens.length) change("position", 0);
    const pick = (i) => // no Tab stops: the slider serves the keyboard
      html("button", { type: "button", tabindex: -1, onclick: () => change("position", i) }, visible(tokens[i]));
    places.replaceChildren(...tokens.map((_, i) => pick(i)));
    const say = (i) => `${i + 1} of ${tokens.length}: ${visible(tokens[i])}`;
    const reach = { min: 0, max: tokens.length - 1, step: 1, value: value("position"), text: say };
    where.slider = slider("Position in the true answer", reach, (i) => change("position", i));
    where.replaceChildren(where.slider);
    who.replaceChildren(choice("Models", Object.keys(models), value("models"), (names) => change("models", names), true));
    update();
  }

  function update() {
    const { tokens, models } = content(), i = value("position"), token = tokens[i];
    where.slider.show(i);
    for (const box of who.querySelectorAll("input")) box.checked = value("models").includes(box.value);
    [...places.children].forEach((b, j) => b.setAttribute("aria-pressed", b.classList.toggle("rk-here", j === i)));
    const names = Object.keys(models).filter((name) => value("models").includes(name));
    const colour = (name) => colours[name.split(/[+,]/)[0]];
    cards.replaceChildren(...names.map((n) => card(n, models[n], i, token, value("k"), value("scale"), colour(n))));
    const said = names.map((n) => `${n} ${number(models[n].true_probability[i])} (rank ${models[n].true_rank[i]})`);
    facts.textContent = said.length ? `The true token ${visible(token)} has probability: ${said.join(", ")}.`
      : "Choose a model above to see what it would say here.";
  }

  // All that is recorded of this question: one row for each position, model and token.
  function table() {
    const rows = [["question", "position", "true token", "model", "entropy, nats", "KL to oracle, nats", "token", "rank", "probability"]];
    const { question, tokens, models } = content();
    tokens.forEach((token, i) => {
      for (const [name, m] of Object.entries(models))
        for (const [j, [text, p]] of m.top[i].entries())
          rows.push([question, i + 1, token, name, m.entropy[i], m.kl_to_oracle?.[i] ?? "", text, j + 1, p]);
    });
    return rows;
  }

  const k = slider("k, tokens shown", { min: 1, max: 10, step: 1, value: value("k") }, (v) => change("k", v));
  root(el, "Token distributions",
    which, html("div", {}, places), where, who,
    html("div", { class: "rk-controls" }, k, choice("Bars", ["linear", "logarithmic"], value("scale"), (v) => change("scale", v))),
    cards, facts, html("div", {}, download("token-distributions.csv", table)));
  model.on("change:questions", list);
  model.on("change:question", ask);
  for (const name of ["position", "models", "k", "scale"]) model.on(`change:${name}`, update);
  list();
}

export default { render };
