// A preview may hold a formula. MathJax (1 MB) is fetched for it on pages that have none of their own.

const mathjax = new URL("mathjax/tex-chtml.js", document.currentScript.src).href;

async function typeset({ popper, popperInstance }) {
  if (!/\\[([]/.test(popper.textContent)) return;
  if (!window.MathJax) {
    window.MathJax = { startup: { typeset: false } };
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

function source(number) {
  window.tippy?.(number, { content: number.title, maxWidth: 520, delay: [250, 50] });
  if (window.tippy) number.removeAttribute("title");
}

document.addEventListener("DOMContentLoaded", () => {
  window.tippy?.setDefaultProps({ onMount: typeset });
  document.querySelectorAll(".rk-number").forEach(source);
});
