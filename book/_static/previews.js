// A preview may hold a formula. MathJax (1 MB) is fetched for it on pages that have none of their own.

const mathjax = new URL("mathjax/tex-chtml.js", document.currentScript.src).href;

async function typeset({ popper, popperInstance }) {
  if (!/\\[([]/.test(popper.textContent)) return;
  if (!window.MathJax) {
    window.MathJax = { startup: { typeset: false }, options: { enableMenu: false } };
    const script = document.createElement("script");
    const loaded = new Promise((resolve) => (script.onload = resolve));
    script.src = mathjax;
    document.head.append(script);
    await loaded;
  }
  await MathJax.startup.promise;
  await MathJax.typesetPromise([popper]);
  popperInstance?.update();
}

// A number of the prose shows its source (rklu_pages/sourced_numbers.py) in the same frame; without tippy its title does.

// Of a paragraph's numbers the first is a Tab stop (a page has up to a hundred); arrow keys go on to the others.

function source(number) {
  const aria = { content: "describedby", expanded: false }; // an interactive tip, which the pointer may enter, describes nothing by itself
  window.tippy(number, { content: number.title, maxWidth: 520, delay: [250, 50], interactive: true, aria });
  number.removeAttribute("title");
  const all = [...number.closest("p, li, td, article").querySelectorAll(".rk-number")], at = all.indexOf(number);
  number.tabIndex = at ? -1 : 0;
  number.addEventListener("focus", () => all.forEach((other) => (other.tabIndex = other === number ? 0 : -1)));
  number.addEventListener("keydown", (event) => {
    const next = all[at + { ArrowLeft: -1, ArrowRight: 1 }[event.key]];
    if (next) event.preventDefault();
    next?.focus();
  });
}

document.addEventListener("DOMContentLoaded", () => {
  if (!window.tippy) return;
  tippy.setDefaultProps({ onMount: typeset });
  document.querySelectorAll(".rk-number").forEach(source);
  document.addEventListener("keydown", (event) => event.key === "Escape" && tippy.hideAll());
});
