// All images, and one of them.

let sequence = data.images;

function className(number) {
  const name = data.classes?.names[number] ?? String(number);
  return name === String(number) ? `class ${name}` : name;
}
const topClass = (image) => (image.classes?.length ? image.classes[0] : null);
const rowOf = (row) => images.get(row);

/** The address of the present view with one image opened over it. */
function withImage(row) {
  const place = new URLSearchParams(location.hash.slice(1));
  place.set('image', row);
  return `#${place.toString().replace(/=(?=&|$)/g, '')}`;
}

function showImages(main, status) {
  const state = { text: '', by: 'row', status: status ?? 'all', kind: 'all' };
  const body = element('div', { class: 'grid list', role: 'list' });
  const found = element('span', { class: 'found', role: 'status' });
  const list = new LazyList(body, imageCard, 60);
  const update = () => {
    sequence = data.images.filter((image) => fits(image, state)).sort(comparison(state.by));
    found.textContent = plural(sequence.length, 'image');
    list.show(sequence, 'No image fits.');
  };
  const change = (name) => (value) => { state[name] = value; update(); };
  const orders = [['row', 'by row'], ['name', 'by name'], ...(data.classes ? [['class', 'by class'], ['sure', 'surest first'], ['unsure', 'least sure first']] : [])];
  main.append(
    element('div', { class: 'tools' },
      searchField('Name, class or reason', state.text, change('text')),
      choice('Order of images', orders, state.by, change('by')),
      classChoice(change('kind')),
      choice('Which images', [['all', 'all images'], ['ok', 'computed'], ['failed', 'failed'], ['fault', 'gone or changed']], state.status, change('status')),
      found),
    body);
  update();
}

function classChoice(onchange) {
  if (!data.classes) return null;
  const counts = new Map();
  for (const image of data.images) if (topClass(image) !== null) counts.set(topClass(image), (counts.get(topClass(image)) ?? 0) + 1);
  const known = [...counts.keys()].sort((a, b) => a - b);
  return choice('Class', [['all', 'all classes'], ...known.map((number) => [String(number), `${className(number)} (${counts.get(number)})`])], 'all', onchange);
}

function fits(image, { text, status, kind }) {
  const best = topClass(image);
  if (status === 'failed' && !image.failed) return false;
  if (status === 'ok' && image.failed) return false;
  if (status === 'fault' && !image.fault) return false;
  if (kind !== 'all' && String(best) !== kind) return false;
  const wanted = text.trim().toLowerCase();
  const fields = (image.fields ?? []).map(([, value]) => value);
  const said = [image.name, best === null ? '' : className(best), image.failed ?? '', image.fault ?? '', ...fields];
  return !wanted || said.some((part) => part.toLowerCase().includes(wanted));
}

function comparison(by) {
  const sure = (image) => image.classes?.[1] ?? -1;
  const kind = (image) => topClass(image) ?? Infinity;
  return {
    row: (a, b) => a.row - b.row,
    name: (a, b) => collator.compare(a.name, b.name) || a.row - b.row,
    class: (a, b) => kind(a) - kind(b) || sure(b) - sure(a) || a.row - b.row,
    sure: (a, b) => sure(b) - sure(a) || a.row - b.row,
    unsure: (a, b) => (sure(a) < 0) - (sure(b) < 0) || sure(a) - sure(b) || a.row - b.row,
  }[by];
}

const baseName = (name) => name.slice(name.lastIndexOf('/', name.length - 2) + 1);

function imageCard(image) {
  const [best, probability] = image.classes ?? [];
  const told = image.failed ? element('span', { class: 'reason' }, image.failed)
    : best === undefined ? null
    : element('span', { class: 'class' }, element('bdi', {}, className(best)), meter(probability), percent(probability));
  return element('a', { class: 'card image item', role: 'listitem', href: withImage(image.row), 'data-row': image.row },
    image.failed ? element('span', { class: 'frame' }, element('span', { class: 'box failed' }, element('span', { class: 'badge' }, 'failed')))
      : picture(image.row, null, ''),
    element('bdi', { class: 'name', title: image.name }, baseName(image.name)), told,
    image.fault ? element('span', { class: 'reason' }, image.fault) : null);
}

const dialog = document.getElementById('image');

/** Open one image over whatever is shown. */
function openImage(row) {
  const image = rowOf(row);
  if (!image) return closeImage();
  const place = sequence.indexOf(image);
  const step = (by) => sequence[place + by] && location.replace(withImage(sequence[place + by].row));
  const button = (text, label, onclick, disabled) => element('button', { type: 'button', class: 'quiet', 'aria-label': label, title: label, onclick, disabled }, text);
  dialog.replaceChildren(
    element('header', {},
      element('h2', { id: 'image-name' }, named(image.name)),
      element('span', { class: 'buttons' },
        button('←', 'Previous image', () => step(-1), place < 1),
        button('→', 'Next image', () => step(1), place < 0 || place + 1 >= sequence.length),
        button('✕', 'Close', leaveImage, false))),
    element('div', { class: 'columns' },
      element('div', {}, image.failed ? null : element('div', { class: 'large' }, picture(row, null, image.name)), imageFacts(image)),
      element('div', {}, image.failed ? element('p', { class: 'reason' }, image.failed) : [classBars(image), strongest(image)])));
  dialog.step = step;
  if (!dialog.open) dialog.showModal();
  dialog.focus();
  dialog.scrollTop = 0;
  return undefined;
}

function closeImage() {
  if (dialog.open) dialog.close();
}

/** Take the image out of the address, which closes it. */
function leaveImage() {
  const place = new URLSearchParams(location.hash.slice(1));
  place.delete('image');
  location.replace(`#${place.toString().replace(/=(?=&|$)/g, '')}`);
}

const imageFacts = (image) => facts([['row', count(image.row)], ['picture', image.fault ?? null], ...(image.fields ?? [])], 'facts wide');

function classBars(image) {
  if (!image.classes) return null;
  const bars = [];
  for (let i = 0; i < image.classes.length; i += 2) {
    bars.push(element('li', {}, element('bdi', { class: 'name' }, className(image.classes[i])), meter(image.classes[i + 1]), element('span', {}, percent(image.classes[i + 1]))));
  }
  return element('section', {}, element('h3', {}, 'Classes'), element('ol', { class: 'bars' }, bars));
}

function strongest(image) {
  return data.layers.map((layer, index) => {
    const found = image.strong[index];
    const tiles = [];
    for (let i = 0; i < found.length; i += 2) tiles.push(strongTile(image, layer, index, i / 2));
    return tiles.length && index !== data.classes?.layer
      ? element('section', {}, element('h3', {}, named(layer.name, 'mono')), element('div', { class: 'tiles strong' }, tiles)) : null;
  });
}

/** The images that did not fail -> their place among these. */
const computed = new Map(data.images.filter((image) => !image.failed).map((image, index) => [image, index]));

/** One of the channels that an image excites most, with its map where there is one. */
function strongTile(image, layer, index, rank) {
  const [channel, value] = image.strong[index].slice(2 * rank, 2 * rank + 2);
  const place = layer.each.number.indexOf(channel);
  const map = mapOfImage(layer, place, computed.get(image), rank);
  return element('a', { class: 'tile', href: `#layer=${index}&channel=${channel}`, title: `channel ${channel}: ${number(value)}` },
    map ? picture(image.row, map, '') : element('span', { class: 'frame' }, element('span', { class: 'box plain' }, meter(value / (layer.each.max[place] || 1)))),
    element('span', { class: 'value' }, element('b', {}, channelName(layer, channel)), ` ${number(value)}`));
}
