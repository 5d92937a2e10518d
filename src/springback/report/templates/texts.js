(() => {
  const make = (tag, text, parent, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    if (parent) parent.append(made);
    return made;
  };
  const choice = (label, options, parent, chosen) => {
    const select = make('select', undefined, make('label', label + ' ', parent));
    for (const [value, text] of options) make('option', text, select).value = value;
    if (chosen !== undefined) select.value = chosen;
    return select;
  };
  const STEP = 50;

  function show(box, data) {
    const bar = make('div', undefined, box, 'texts-bar');
    const models = data.models.map((name, i) => [i, name]);
    const [first, second] = [data.pair[0], data.pair[data.pair.length - 1]];
    const a = models.length > 1 ? choice('A', models, bar, first) : { value: 0 };
    const b = models.length > 1 ? choice('B', models, bar, second) : { value: 0 };
    const answers = data.rows.flatMap(row => row.slice(3).filter(Boolean));
    const graded = answers.some(x => x[1] !== null);
    const rightOrWrong = graded && answers.every(x => x[1] === null || x[1] === 0 || x[1] === 1);
    const cut = answers.some(x => x[3]);
    const filters = [['all', 'all questions']];
    if (graded) {
      const word = rightOrWrong ? 'right only by ' : 'higher score by ';
      filters.push(['a', word + 'A'], ['b', word + 'B']);
      if (rightOrWrong) filters.push(['both', 'right by both'], ['none', 'right by neither']);
    }
    if (cut) filters.push(['cut', 'cut off']);
    if (models.length > 1) filters.push(['differ', 'texts that differ']);
    const filter = choice('Show', filters, bar);
    const order = choice('Order', [['asked', 'as asked'], ['long', 'longest first'],
      ['short', 'shortest first'], ['apart', 'scores furthest apart']], bar);
    const count = make('output', '', bar);
    const table = make('table', undefined, box, 'texts-table');
    const head = make('tr', undefined, make('thead', undefined, table));
    const body = make('tbody', undefined, table);
    const more = make('button', `Show ${STEP} more`, box);
    more.type = 'button';

    const text = cell => data.texts[cell] ?? '';
    const length = answer => answer ? text(answer[0]).length : 0;
    const score = answer => answer && answer[1] !== null ? answer[1] : NaN;
    const tests = {
      all: () => true,
      a: (x, y) => score(x) > score(y),
      b: (x, y) => score(y) > score(x),
      both: (x, y) => score(x) === 1 && score(y) === 1,
      none: (x, y) => score(x) === 0 && score(y) === 0,
      cut: (x, y) => Boolean((x && x[3]) || (y && y[3])),
      differ: (x, y) => (x && x[0]) !== (y && y[0]),
    };
    const longest = row => Math.max(length(row[3 + +a.value]), length(row[3 + +b.value]));
    const apart = row => Math.abs(score(row[3 + +a.value]) - score(row[3 + +b.value])) || 0;
    const orders = {
      asked: (x, y) => x[0] - y[0],
      long: (x, y) => longest(y) - longest(x) || x[0] - y[0],
      short: (x, y) => longest(x) - longest(y) || x[0] - y[0],
      apart: (x, y) => apart(y) - apart(x) || x[0] - y[0],
    };

    const words = answer => {
      const known = [];
      if (answer[1] !== null) {
        known.push(!rightOrWrong ? 'score ' + answer[1] : answer[1] ? '✓ right' : '✗ wrong');
      }
      if (answer[3]) known.push('cut off');
      return known.join(', ');
    };
    const put = (cell, value) => { make('div', value, cell, 'text').dir = 'auto'; };
    const answered = (line, model, answer) => {
      const cell = make('td', undefined, line);
      cell.dataset.name = data.models[model];
      if (!answer) { make('small', 'not asked', cell); return; }
      if (words(answer)) make('small', words(answer), cell, answer[1] === 1 ? 'right' : '');
      put(cell, text(answer[0]));
    };

    let rows = [], shown = 0;
    const add = () => {
      for (const row of rows.slice(shown, shown + STEP)) {
        const line = make('tr', undefined, body);
        const button = make('button', row[0] + 1, make('th', undefined, line));
        button.type = 'button';
        button.title = 'Show all of these texts';
        button.setAttribute('aria-expanded', 'false');
        button.onclick = () => {
          button.setAttribute('aria-expanded', String(line.classList.toggle('whole')));
        };
        const asked = make('td', undefined, line);
        put(asked, text(row[1]));
        if (text(row[2])) {
          const reference = make('div', undefined, asked, 'reference');
          make('small', 'reference', reference);
          put(reference, text(row[2]));
        }
        answered(line, +a.value, row[3 + +a.value]);
        if (models.length > 1) answered(line, +b.value, row[3 + +b.value]);
      }
      shown += STEP;
      more.hidden = shown >= rows.length;
    };
    const draw = () => {
      const of = row => [row[3 + +a.value], row[3 + +b.value]];
      rows = data.rows.filter(row => tests[filter.value](...of(row))).sort(orders[order.value]);
      count.textContent = `${rows.length} of ${data.rows.length}`;
      head.replaceChildren();
      const names = models.length > 1 ? [data.models[a.value], data.models[b.value]] : data.models;
      for (const name of ['', 'Question', ...names]) make('th', name, head).scope = 'col';
      body.replaceChildren();
      shown = 0;
      add();
    };
    for (const select of [a, b, filter, order]) select.onchange = draw;
    more.onclick = add;
    draw();
  }

  async function start(box) {
    const packed = atob(box.querySelector('script').textContent.trim());
    const bytes = Uint8Array.from(packed, letter => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
    show(box, JSON.parse(await new Response(stream).text()));
    box.querySelector('.texts-none').hidden = true;
  }
  for (const box of document.querySelectorAll('.texts')) start(box).catch(() => {});
})();
