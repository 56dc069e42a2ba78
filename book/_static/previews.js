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

document.addEventListener("DOMContentLoaded", () => window.tippy?.setDefaultProps({ onMount: typeset }));
