// All layers, and the channels of one.

const mapMode = { value: 'over' };

/** What a channel is called: its number, and the class it stands for. */
function channelName(layer, channel) {
  const isClasses = data.classes && data.layers[data.classes.layer] === layer;
  const name = isClasses ? data.classes.names[channel] : '';
  return name && name !== String(channel) ? `${channel} ${name}` : String(channel);
}

/** Picture, overlay or map. */
function mapModes() {
  const modes = [['image', 'Image'], ['over', 'Overlay'], ['map', 'Map']];
  return element('span', { class: 'modes', role: 'radiogroup', 'aria-label': 'What is shown of an image' },
    modes.map(([mode, text]) => element('label', {},
      element('input', { type: 'radio', name: 'mode', value: mode, checked: mode === mapMode.value, onchange: () => setMapMode(mode) }),
      element('span', {}, text))));
}

function setMapMode(mode) {
  mapMode.value = mode;
  document.body.dataset.maps = mode;
  for (const input of document.querySelectorAll('input[name="mode"]')) input.checked = input.value === mode;
}

const shapeText = (layer) => layer.shape.join(' × ') || 'one number';

/** With so many layers they can be searched and sorted. */
const MANY_LAYERS = 7;

function showLayers(main) {
  const state = { text: '', by: 'model' };
  const body = element('div', { class: 'cards list' });
  const list = new LazyList(body, (index) => layerCard(data.layers[index], index), 24);
  const update = () => list.show(layersInOrder(state), 'No layer is called that.');
  const change = (name) => (value) => { state[name] = value; update(); };
  const orders = [['model', 'as asked for'], ['name', 'by name'], ['zeros', 'sparsest first'], ['dead', 'most dead first'], ['channels', 'most channels first']];
  main.append(...present([summary(), notes(),
    data.layers.length < MANY_LAYERS ? null : element('div', { class: 'tools' },
      searchField('Name or class', '', change('text')), choice('Order of layers', orders, state.by, change('by'))),
    body]));
  update();
}

/** The numbers of the layers that are meant, in an order. */
function layersInOrder({ text, by }) {
  const wanted = text.trim().toLowerCase();
  const key = { model: () => 0, name: () => 0, zeros: (layer) => -(layer.zeros ?? -1), dead: (layer) => -layer.dead, channels: (layer) => -layer.channels }[by];
  return data.layers.map((_, index) => index)
    .filter((index) => `${data.layers[index].name} ${data.layers[index].class}`.toLowerCase().includes(wanted))
    .sort((a, b) => key(data.layers[a]) - key(data.layers[b])
      || (by === 'name' ? collator.compare(data.layers[a].name, data.layers[b].name) : a - b));
}

/** The ways to the layers before and after one. */
function neighbours(index) {
  const link = (to) => (data.layers[to] ? element('a', { href: `#layer=${to}` }, to < index ? '←' : null, named(data.layers[to].name, 'mono'), to > index ? '→' : null) : element('span'));
  return element('p', { class: 'beside' }, link(index - 1), link(index + 1));
}

function summary() {
  const dead = data.layers.reduce((sum, layer) => sum + layer.dead, 0);
  const channels = data.layers.reduce((sum, layer) => sum + layer.channels, 0);
  return facts([
    ['images', count(data.rows)],
    ['failed', data.failed ? element('a', { href: '#images&status=failed' }, count(data.failed)) : '0'],
    ['layers', count(data.layers.length)],
    ['channels', count(channels)],
    ['dead channels', count(dead)],
  ], 'summary');
}

const notes = () => (data.notes.length ? element('ul', { class: 'notes' }, data.notes.map((note) => element('li', {}, note))) : null);

function layerCard(layer, index) {
  const places = order(layer, 'strength').filter((place) => layer.each.rows[place].length).slice(0, 4);
  const strip = places.map((place) => picture(layer.each.rows[place][0], mapOfChannel(layer, place, 0), ''));
  return element('a', { class: 'card layer item', href: `#layer=${index}` },
    element('span', { class: 'strip', 'aria-hidden': 'true' }, strip),
    element('h2', {}, named(layer.name, 'mono')),
    element('p', { class: 'under' }, `${layer.class}  ${shapeText(layer)}`),
    histogram(layer),
    layerFacts(layer));
}

function layerFacts(layer) {
  const odd = layer.nan + layer.infinite;
  return facts([
    ['mean', number(layer.mean)],
    ['std', number(layer.std)],
    ['zeros', percent(layer.zeros)],
    ['dead', `${count(layer.dead)} of ${count(layer.channels)}`],
    ['NaN or infinite', odd ? count(odd) : null],
  ]);
}

/** The places of a layer's channels in an order. */
function order(layer, by) {
  const { number: numbers, max, mean, zeros } = layer.each;
  const key = { strength: (i) => -(max[i] ?? -Infinity), sparse: (i) => -(zeros[i] ?? -Infinity),
    dense: (i) => zeros[i] ?? Infinity, mean: (i) => -(mean[i] ?? -Infinity), number: (i) => numbers[i] }[by];
  const keys = numbers.map((_, i) => key(i));
  return numbers.map((_, i) => i).sort((a, b) => keys[a] - keys[b] || a - b);
}

/** Whether a channel is meant by a search: numbers and ranges, as in "0, 5, 12-15", or part of a name. */
function meant(layer, channel, text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return true;
  if (!/^[\d\s,-]+$/.test(wanted)) return channelName(layer, channel).toLowerCase().includes(wanted);
  return wanted.split(/[\s,]+/).some((part) => {
    const [first, last] = part.split('-').map(Number);
    return part !== '' && channel >= first && channel <= (last || (part.includes('-') ? Infinity : first));
  });
}

function showLayer(main, index, channel) {
  const layer = data.layers[index];
  const state = { by: 'strength', text: channel ?? '', which: 'all' };
  const body = element('div', { class: 'channels list', role: 'list' });
  const found = element('span', { class: 'found', role: 'status' });
  const list = new LazyList(body, (place) => channelRow(layer, place), 24);
  const dead = new Set(layer.each.dead);
  const update = () => {
    const places = order(layer, state.by).filter((place) => meant(layer, layer.each.number[place], state.text)
      && (state.which === 'all' || dead.has(place) === (state.which === 'dead')));
    found.textContent = plural(places.length, 'channel');
    list.show(places, 'No channel is called that.');
  };
  const change = (name) => (value) => { state[name] = value; update(); };
  main.append(
    neighbours(index),
    element('div', { class: 'head' },
      element('div', {}, element('h2', {}, named(layer.name, 'mono')), element('p', { class: 'under' }, `${layer.class}  ${shapeText(layer)}  ${layer.type}`), layerFacts(layer)),
      histogram(layer)),
    element('div', { class: 'tools' },
      searchField('Channels: 0, 5, 12-15', state.text, change('text')),
      choice('Order of channels', [['strength', 'strongest first'], ['number', 'by number'], ['sparse', 'sparsest first'], ['dense', 'densest first'], ['mean', 'largest mean first']], state.by, change('by')),
      choice('Which channels', [['all', 'all channels'], ['alive', 'not dead'], ['dead', 'dead only']], state.which, change('which')),
      layer.maps ? mapModes() : null, found),
    body);
  update();
}

function channelRow(layer, place) {
  const { each } = layer;
  const rows = each.rows[place];
  const channel = each.number[place];
  const isDead = each.dead.includes(place);
  const head = element('header', {},
    element('h3', {}, named(channelName(layer, channel), 'mono'), isDead ? element('span', { class: 'badge' }, 'dead') : null),
    facts([['max', number(each.max[place])], ['mean', number(each.mean[place])], ['zeros', percent(each.zeros[place])]]),
    layer.maps && !isDead ? legend(layer, place) : null);
  const tiles = rows.map((row, rank) => {
    const value = number(each.values[place][rank]);
    const label = images.get(row)?.name ?? `row ${row}`;
    return element('a', { class: 'tile item', href: withImage(row), title: label, 'aria-label': `${label}, ${value}` },
      picture(row, mapOfChannel(layer, place, rank), ''), element('span', { class: 'value' }, value));
  });
  const none = isDead ? '0 in every image' : 'no values';
  return element('article', { class: `channel ${isDead ? 'dead' : ''}`, role: 'listitem' }, head,
    rows.length ? element('div', { class: 'tiles' }, tiles) : element('p', { class: 'empty' }, none));
}
