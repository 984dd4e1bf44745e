// Maps, pictures and histograms.

const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const palettes = { amounts: bytes(data.palettes.amounts), signed: bytes(data.palettes.signed) };
const images = new Map(data.images.map((image) => [image.row, image]));
const STEPS = 254;
const MISSING = 255;
const unpacked = new Map();

/** The bytes of all maps of a layer, a promise. */
function mapsOf(layer) {
  if (!unpacked.has(layer)) {
    const packed = new Blob([bytes(layer.maps.packed)]).stream();
    const read = new Response(packed.pipeThrough(new DecompressionStream('deflate'))).arrayBuffer();
    unpacked.set(layer, read.then((buffer) => new Uint8Array(buffer)));
  }
  return unpacked.get(layer);
}

const isSigned = (layer, place) => layer.maps.low[place] < 0;

/** Draw one map on a canvas of its own size. */
async function drawMap(canvas, layer, place, rank) {
  const { width, height, top } = layer.maps;
  const all = await mapsOf(layer);
  const start = (place * top + rank) * width * height;
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
  return element('span', { class: 'legend' }, number(layer.maps.low[place]), canvas, number(layer.maps.high[place]));
}

/** An image, with a map over it if there is one; `maps` is null or {layer, place, rank}. */
function picture(row, maps, alternative) {
  const image = images.get(row);
  const [url, width, height] = image?.picture ?? [null, 1, 1];
  const box = element('span', { class: 'box' });
  box.style.setProperty('--ratio', width / height);
  if (url) box.append(element('img', { src: url, width, height, alt: alternative, loading: 'lazy', decoding: 'async' }));
  else box.append(element('span', { class: 'none', role: 'img', 'aria-label': alternative }));
  if (maps) {
    const { width: across, height: down, is_sequence: isSequence } = maps.layer.maps;
    const signed = isSigned(maps.layer, maps.place);
    const canvas = element('canvas', { class: `map ${signed ? 'signed' : 'amounts'} ${isSequence ? 'sequence' : ''}`,
      width: across, height: down, 'aria-hidden': 'true' });
    drawMap(canvas, maps.layer, maps.place, maps.rank);
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
