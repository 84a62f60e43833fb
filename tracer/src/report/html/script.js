"use strict";
(() => {
  const all = (what, of = document) => [...of.querySelectorAll(what)];
  const flows = all("details.flow");

  // The sentences for the ticket, as text.
  for (const box of all("[data-copy]")) {
    if (!navigator.clipboard) break;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const text = all("p", box).map((p) => p.textContent).join("\n");
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(box);
      }
    });
    box.after(button);
  }

  for (const tools of all("[data-tools]")) {
    tools.hidden = flows.length < 2;
    const count = tools.querySelector("[data-count]");
    const open = (is) => flows.filter((flow) => !flow.hidden).forEach((flow) => { flow.open = is; });
    tools.querySelector("[data-open]").addEventListener("click", () => open(true));
    tools.querySelector("[data-close]").addEventListener("click", () => open(false));
    tools.querySelector("[data-filter]").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
      for (const flow of flows) {
        const text = flow.querySelector("summary").textContent.toLowerCase();
        flow.hidden = !words.every((word) => text.includes(word));
      }
      const left = flows.filter((flow) => !flow.hidden).length;
      count.textContent = words.length ? `${left} of ${flows.length}` : "";
    });
  }

  // A link to what is closed opens it.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    const closed = target && target.closest("details");
    if (closed) {
      closed.hidden = false;
      closed.open = true;
      closed.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();

  // On paper nothing can be opened. Flows stay as the reader has left them: there may be many.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open], .flow)");
    closed.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((one) => { one.open = false; }));
})();
