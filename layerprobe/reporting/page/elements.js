// Elements and numbers. Whatever comes from the data is set as text, never as HTML.

const data = JSON.parse(document.getElementById('data').textContent);

/** The children that are there, of lists in lists. */
const present = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined);

/** Make an element: properties, attributes (with a dash in their name, or `role`), listeners (`onclick`), children. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === 'class') made.className = value;
    else if (name === 'role' || name.includes('-')) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...present(children));
  return made;
}

/** Make an SVG element with attributes. */
function shape(tag, attributes, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Three digits; a dash where there is no number. */
function number(value) {
  if (value === null || value === undefined) return '–';
  const size = Math.abs(value);
  const text = size && (size < 1e-3 || size >= 1e6) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return text.replace(/-/g, '−');
}

const collator = new Intl.Collator('en', { numeric: true });
const count = (value) => value.toLocaleString('en');
const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? '' : 's'}`;

/** A share as per cent; what is not quite all or nothing does not look like it. */
function percent(share) {
  if (share === null || share === undefined) return '–';
  if (share > 0 && share < 0.001) return '< 0.1 %';
  if (share < 1 && share > 0.999) return '> 99.9 %';
  return `${(100 * share).toFixed(share === 0 || share === 1 ? 0 : 1)} %`;
}

/** A name as it is, on one line, with the whole of it to be read on hovering. */
const named = (text, kind = '') => element('bdi', { class: `name ${kind}`, title: text }, text);

/** Pairs of names and values. */
function facts(pairs, kind = 'facts') {
  const shown = pairs.filter(([, value]) => value !== null);
  return element('dl', { class: kind }, shown.map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, value))));
}

/** A list to choose from: [value, text] each. */
function choice(label, options, value, onchange) {
  const list = element('select', { 'aria-label': label, onchange: () => onchange(list.value) },
    options.map(([key, text]) => element('option', { value: key, selected: key === value }, text)));
  return list;
}

/** A field that searches as one types. */
function searchField(label, value, oninput) {
  const field = element('input', { type: 'search', class: 'search', placeholder: label, value, 'aria-label': label,
    spellcheck: false, oninput: () => oninput(field.value) });
  field.setAttribute('autocomplete', 'off');
  return field;
}
