// Which view is shown, the theme, and the keyboard.

let shownView = null;

/** Show what the address says: #layers, #layer=2, #layer=2&channel=37, #images, #about; &image=12 opens one. */
function route() {
  const place = new URLSearchParams(location.hash.slice(1));
  const image = place.get('image');
  place.delete('image');
  const layer = place.get('layer');
  const isLayer = layer !== null && data.layers[layer] !== undefined;
  const view = isLayer ? 'layer' : ['images', 'about'].find((name) => place.has(name)) ?? 'layers';
  const key = `${view} ${place}`;
  if (key !== shownView) {
    shownView = key;
    const main = document.getElementById('main');
    main.replaceChildren();
    main.className = view;
    if (view === 'layer') showLayer(main, Number(layer), place.get('channel'));
    else if (view === 'images') showImages(main, place.get('status'));
    else if (view === 'about') showAbout(main);
    else showLayers(main);
    for (const link of document.querySelectorAll('nav a')) {
      const isCurrent = link.dataset.view === (isLayer ? 'layers' : view);
      if (isCurrent) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    scrollTo(0, 0);
  }
  if (image === null) closeImage();
  else openImage(Number(image));
}

const THEMES = { auto: '◐', light: '☀', dark: '☾' };

function setTheme(theme) {
  const button = document.getElementById('theme');
  document.documentElement.dataset.theme = theme;
  button.textContent = THEMES[theme];
  button.setAttribute('aria-label', `Colours: ${theme === 'auto' ? 'as the system has them' : theme}`);
  button.title = button.getAttribute('aria-label');
  try { localStorage.setItem('layerprobe-theme', theme); } catch { /* where pages may keep nothing */ }
}

function keptTheme() {
  try { return localStorage.getItem('layerprobe-theme'); } catch { return null; }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key, target } = event;
  const isTyping = target.matches('input[type="search"], select');
  if (dialog.open) {
    if (key === 'ArrowLeft' || key === 'ArrowRight') dialog.step(key === 'ArrowRight' ? 1 : -1);
    return;
  }
  const search = document.querySelector('main .search');
  if (key === '/' && !isTyping && search) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (key === 'Escape') {
    leave(target, search);
  } else if (key === 'm' && !isTyping) {
    const modes = ['image', 'over', 'map'];
    setMapMode(modes[(modes.indexOf(mapMode.value) + 1) % modes.length]);
  } else if (target.matches('a.item') && /^(Arrow|Home$|End$)/.test(key)) {
    event.preventDefault();
    moveFocus(target, key);
  } else if (target === search && key === 'ArrowDown') {
    event.preventDefault();
    document.querySelector('main a.item')?.focus();
  }
}

/** Escape: empty the search, then leave it, then go back to all layers. */
function leave(target, search) {
  if (target === search && search.value) {
    search.value = '';
    search.dispatchEvent(new Event('input'));
  } else if (target === search) {
    search.blur();
  } else if (document.getElementById('main').className === 'layer') {
    location.hash = '#layers';
  }
}

document.getElementById('title').textContent = data.title;
document.getElementById('title').title = data.title;
document.getElementById('made').textContent = data.made;
document.getElementById('theme').addEventListener('click', () => {
  const themes = Object.keys(THEMES);
  setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length]);
});
dialog.addEventListener('cancel', (event) => { event.preventDefault(); leaveImage(); });
dialog.addEventListener('click', (event) => { if (event.target === dialog) leaveImage(); });
document.addEventListener('keydown', onKey);
addEventListener('hashchange', route);
setTheme(keptTheme() in THEMES ? keptTheme() : 'auto');
setMapMode('over');
route();
