// Maps, pictures and histograms.

const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const palettes = { amounts: bytes(data.palettes.amounts), signed: bytes(data.palettes.signed) };
const images = new Map(data.images.map((image) => [image.row, image]));
const STEPS = 254;
const MISSING = 255;
const unpacked = new Map();

/** The bytes of maps that belong together, a promise. */
function unpack(maps) {
  if (!unpacked.has(maps)) {
    const packed = new Blob([bytes(maps.packed)]).stream();
    const read = new Response(packed.pipeThrough(new DecompressionStream('deflate'))).arrayBuffer();
    unpacked.set(maps, read.then((buffer) => new Uint8Array(buffer)));
  }
  return unpacked.get(maps);
}

/** Where the map of one of a channel's strongest images is; null if there is none. `place` is the channel's. */
const mapOfChannel = (layer, place, rank) => layer.maps && { layer, place, from: layer.maps, at: place * layer.maps.top + rank };

/** Where the map of one of an image's strongest channels is; `index` is the image's among those that did not fail. */
const mapOfImage = (layer, place, index, rank) => (layer.maps_of_rows && place >= 0
  ? { layer, place, from: layer.maps_of_rows, at: index * layer.maps_of_rows.top + rank } : null);

const isSigned = (layer, place) => layer.low[place] < 0;

/** Draw one map on a canvas of its own size. */
async function drawMap(canvas, { layer, place, from, at }) {
  const { width, height } = from;
  const all = await unpack(from);
  const start = at * width * height;
  const palette = isSigned(layer, place) ? palettes.signed : palettes.amounts;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    const step = all[start + i];
    const colour = step === MISSING ? null : Math.round((step / STEPS) * 255) * 3;
    for (let part = 0; part < 3; part += 1) pixels.data[4 * i + part] = colour === null ? 128 : palette[colour + part];
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext('2d').putImageData(pixels, 0, 0);
}

/** What the colours of a channel's maps mean. */
function legend(layer, place) {
  const canvas = element('canvas', { class: 'ramp', width: 128, height: 1 });
  const palette = isSigned(layer, place) ? palettes.signed : palettes.amounts;
  const pixels = new ImageData(128, 1);
  for (let i = 0; i < 128; i += 1) {
    pixels.data.set([...palette.subarray(6 * i, 6 * i + 3), 255], 4 * i);
  }
  canvas.getContext('2d').putImageData(pixels, 0, 0);
  return element('span', { class: 'legend' }, number(layer.low[place]), canvas, number(layer.high[place]));
}

/** An image, with a map over it, if there is one. */
function picture(row, map, alternative) {
  const image = images.get(row);
  const [url, width, height] = image?.picture ?? [null, 1, 1];
  const box = element('span', { class: 'box' });
  box.style.setProperty('--ratio', width / height);
  if (url) box.append(element('img', { src: url, width, height, alt: alternative, loading: 'lazy', decoding: 'async' }));
  else box.append(element('span', { class: 'none', role: 'img', 'aria-label': alternative }));
  if (map) {
    const { width: across, height: down } = map.from;
    const isSequence = map.layer.is_sequence;
    const signed = isSigned(map.layer, map.place);
    const canvas = element('canvas', { class: `map ${signed ? 'signed' : 'amounts'} ${isSequence ? 'sequence' : ''}`,
      width: across, height: down, 'aria-hidden': 'true' });
    drawMap(canvas, map);
    box.append(canvas);
    box.classList.add(signed ? 'under-signed' : 'under-amounts');
    if (isSequence) box.classList.add('with-sequence');
  }
  return element('span', { class: 'frame' }, box);
}

/** How the values of a layer are spread. */
function histogram(layer) {
  const { counts, without_zeros: withoutZeros } = layer.histogram;
  const most = Math.max(...counts, 1);
  const width = 4;
  const bars = counts.map((value, i) => shape('rect', { x: i * width, width: width - 1,
    y: 100 - (100 * value) / most, height: value ? Math.max((100 * value) / most, 1) : 0 }));
  const drawn = shape('svg', { viewBox: `0 0 ${counts.length * width - 1} 100`, preserveAspectRatio: 'none', role: 'img',
    'aria-label': `Histogram of ${layer.name}, from ${number(layer.min)} to ${number(layer.max)}` }, ...bars);
  const below = withoutZeros ? `without the ${percent(layer.zeros)} that are 0` : '';
  return element('figure', { class: 'histogram' }, drawn, element('figcaption', {},
    element('span', {}, number(layer.min)), element('span', {}, below), element('span', {}, number(layer.max))));
}

/** A bar for a share of the whole. */
function meter(share) {
  const bar = element('span', { class: 'meter', 'aria-hidden': 'true' }, element('span'));
  bar.firstChild.style.setProperty('--share', Math.max(0, Math.min(1, share || 0)));
  return bar;
}
