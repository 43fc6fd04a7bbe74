// Elements from values. Text is always a text node: what a client sent can never become markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: `h("a", {class: "x", href: "#/", onclick: f}, "text", other)`. */
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const PATHS = {
  lock: ["M6 11h12v9H6z", "M8.5 11V8a3.5 3.5 0 0 1 7 0v3"],
  unlock: ["M6 11h12v9H6z", "M8.5 11V7.5a3.5 3.5 0 0 1 6.8-1.2"],
  check: ["m5 12.5 4.5 4.5L19 7"],
  cross: ["M6 6l12 12M18 6 6 18"],
  skip: ["M6 12h12"],
  gate: ["M4 20V9l8-5 8 5v11", "M9 20v-6h6v6"],
  globe: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M3.5 12h17M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18"],
  sun: ["M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z", "M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4"],
  moon: ["M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z"],
  auto: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M12 3v18"],
  plus: ["M12 5v14M5 12h14"],
  minus: ["M5 12h14"],
  fit: ["M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5"],
  pause: ["M8 5v14M16 5v14"],
  play: ["M7 4.5v15l12-7.5z"],
  shield: ["M12 3 5 5.6V11c0 4.4 3 8 7 9.6 4-1.6 7-5.2 7-9.6V5.6z"],
};

/** A decorative drawing of the set above. */
export function glyph(name, className = "glyph") {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("aria-hidden", "true");
  drawing.setAttribute("class", className);
  for (const path of PATHS[name]) {
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("d", path);
    drawing.append(line);
  }
  return drawing;
}

/** A line as the legend shows it. */
export function sample(className) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 30 10");
  drawing.setAttribute("aria-hidden", "true");
  drawing.setAttribute("class", `line ${className}`);
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", "M0 5h30");
  drawing.append(line);
  return drawing;
}

export const chip = (kind, ...content) => h("span", { class: `chip ${kind}` }, ...content);
/** Text that may be broken behind a slash, if something worth a line of its own follows. */
function breakable(text) {
  const parts = typeof text === "string" ? text.split(/(?<=[/])(?=[^/]{3})/) : [text];
  return parts.flatMap((part, index) => (index ? [h("wbr", {}), part] : [part]));
}

export const mono = (text, className = "") => h("span", { class: `mono ${className}` }, breakable(text));
export const boxed = (text) => h("span", { class: "value" }, breakable(text));


/** Text that can be copied with a button. */
export function copyable(text, label) {
  const button = h("button", { class: "button", type: "button", "aria-label": `Copy ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.nextElementSibling);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1600);
  });
  return h("div", { class: "copy" }, button, h("pre", { tabindex: "0", role: "region", "aria-label": label }, text));
}

/** Rows of a definition list; what is empty is left out. */
export function facts(pairs) {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", {}, told.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/** Say something to those who listen instead of looking. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}
