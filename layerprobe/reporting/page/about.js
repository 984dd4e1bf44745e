// Where all this comes from.

function showAbout(main) {
  const failed = data.images.filter((image) => image.failed);
  main.append(...present([
    element('section', {}, element('h2', {}, 'What made it'),
      facts(data.provenance.map(([name, text]) => [name, element('bdi', { class: name.startsWith('SHA') ? 'mono' : '' }, text)]), 'facts long')),
    notes() ? element('section', {}, element('h2', {}, 'What is not shown'), notes()) : null,
    failed.length ? element('section', {}, element('h2', {}, `${plural(data.failed, 'row')} failed`), failures(failed)) : null,
    element('section', { class: 'reading' }, element('h2', {}, 'How to read it'), READING.map((text) => element('p', {}, text))),
  ]));
}

const READING = [
  'An image excites a channel as much as the channel’s largest value in it, at whatever position. For each channel the images that excite it most are shown, the strongest first; the number below is that value.',
  'A map is laid over the image as the model saw it: cropped or padded, in its own proportions. Equal colours in one channel are equal values. Where no value is negative 0 adds nothing to the image; where some are, blue is below 0 and red above. Large maps are kept smaller than they are, averaged.',
  'A channel is dead if it is 0 everywhere in every image. Failed rows, NaN and infinite values are left out of all numbers.',
];

function failures(failed) {
  const rows = failed.map((image) => element('tr', {}, element('td', {}, String(image.row)), element('td', {}, element('bdi', {}, image.name)), element('td', {}, image.failed)));
  return element('div', { class: 'scroll', tabIndex: 0, role: 'region', 'aria-label': 'Failed rows' },
    element('table', {}, element('thead', {}, element('tr', {}, ['row', 'name', 'reason'].map((text) => element('th', { scope: 'col' }, text)))), element('tbody', {}, rows)));
}
