// Long lists: elements are made as they come near, and arrow keys move among them.

/** Shows `make(item)` for as many items as have been scrolled to. */
class LazyList {
  constructor(parent, make, atOnce) {
    Object.assign(this, { parent, make, atOnce, items: [], shown: 0 });
    this.end = element('div', { class: 'end', 'aria-hidden': 'true' });
    this.observer = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && this.more(),
      { rootMargin: '1200px' });
  }

  /** Show other items, from the first on. */
  show(items, none) {
    this.items = items;
    this.shown = 0;
    this.parent.replaceChildren();
    if (!items.length) this.parent.append(element('p', { class: 'empty' }, none));
    this.more();
  }

  more() {
    this.observer.disconnect();
    const next = this.items.slice(this.shown, this.shown + this.atOnce);
    this.shown += next.length;
    this.end.remove();
    this.parent.append(...next.map(this.make));
    keepOneTabStop(this.parent);
    if (this.shown < this.items.length) {
      this.parent.append(this.end);
      // It tells at once if the end is still near, and then there is more.
      this.observer.observe(this.end);
    }
  }
}

/** In a list of a thousand links Tab goes to one, and arrows to the others. */
function keepOneTabStop(parent) {
  const items = parent.querySelectorAll('a.item');
  const current = parent.querySelector('a.item[tabindex="0"]');
  for (const item of items) if (item !== current) item.tabIndex = -1;
  if (!current && items.length) items[0].tabIndex = 0;
}

document.addEventListener('focusin', ({ target }) => {
  if (!target.matches('a.item')) return;
  for (const other of target.closest('.list').querySelectorAll('a.item[tabindex="0"]')) other.tabIndex = -1;
  target.tabIndex = 0;
});

/** Move the focus from a link of a list: sideways to its neighbour, up and down to the nearest one there. */
function moveFocus(from, key) {
  const items = [...from.closest('.list').querySelectorAll('a.item')];
  const place = items.indexOf(from);
  if (key === 'Home' || key === 'End') return items.at(key === 'Home' ? 0 : -1).focus();
  if (key === 'ArrowLeft' || key === 'ArrowRight') return items[place + (key === 'ArrowRight' ? 1 : -1)]?.focus();
  const here = from.getBoundingClientRect();
  const down = key === 'ArrowDown';
  const beyond = (down ? items.slice(place + 1) : items.slice(0, place).reverse())
    .slice(0, 200)
    .map((item) => [item, item.getBoundingClientRect()])
    .filter(([, box]) => (down ? box.top >= here.bottom - 1 : box.bottom <= here.top + 1));
  if (!beyond.length) return undefined;
  const line = beyond[0][1].top;
  const inLine = beyond.filter(([, box]) => Math.abs(box.top - line) < here.height);
  const distance = ([, box]) => Math.abs(box.left - here.left);
  return inLine.reduce((best, one) => (distance(one) < distance(best) ? one : best))[0].focus();
}
