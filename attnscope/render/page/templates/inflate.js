"use strict";
// Decompress gzip as Python writes it (RFC 1951). The DecompressionStream of a browser is asynchronous, and the page needs
// its data before it shows them.
function inflated(bytes) {
  const found = [];
  let at = 8 * 10;  // the place of the next bit; gzip has a header of 10 bytes

  function take(count) {
    let value = 0;
    for (let place = 0; place < count; place += 1, at += 1) value |= ((bytes[at >> 3] >> (at & 7)) & 1) << place;
    return value;
  }

  // A Huffman code: how many of its words have each length, and the symbols in the order of their words.
  function code(lengths) {
    const counts = new Uint16Array(16), symbols = [];
    for (let length = 1; length < 16; length += 1) {
      lengths.forEach((each, symbol) => { if (each === length) symbols.push(symbol); });
      counts[length] = lengths.filter((each) => each === length).length;
    }
    return { counts, symbols };
  }

  function symbol({ counts, symbols }) {
    let word = 0, first = 0, index = 0;
    for (let length = 1; length < 16; length += 1) {
      word |= take(1);
      if (word - first < counts[length]) return symbols[index + word - first];
      index += counts[length];
      first = (first + counts[length]) << 1;
      word <<= 1;
    }
    throw new Error("The data of the page are damaged");
  }

  function dynamic() {
    const [literals, distances, kinds] = [take(5) + 257, take(5) + 1, take(4) + 4];
    const order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    const first = Array(19).fill(0);
    for (const kind of order.slice(0, kinds)) first[kind] = take(3);
    const outer = code(first), lengths = [];
    while (lengths.length < literals + distances) {
      const kind = symbol(outer);
      if (kind < 16) lengths.push(kind);
      else if (kind === 16) lengths.push(...Array(take(2) + 3).fill(lengths.at(-1)));
      else lengths.push(...Array(kind === 17 ? take(3) + 3 : take(7) + 11).fill(0));
    }
    return [code(lengths.slice(0, literals)), code(lengths.slice(literals))];
  }

  // The length or the distance of a repeat: the first two groups of numbers are amounts, each later group has one more
  // bit of the amount behind the number.
  function amount(number, group) {
    if (number < 2 * group) return number;
    const extra = Math.floor(number / group) - 1;
    return ((group + number % group) << extra) + take(extra);
  }

  const span = (from, to, length) => Array(to - from).fill(length);
  for (let last = 0; !last;) {
    last = take(1);
    const kind = take(2);
    if (kind === 0) {
      at = (at + 7) & ~7;
      const size = take(16);
      at += 16;
      for (let place = 0; place < size; place += 1) found.push(take(8));
      continue;
    }
    const fixed = () => [
      code([...span(0, 144, 8), ...span(144, 256, 9), ...span(256, 280, 7), ...span(280, 288, 8)]), code(span(0, 30, 5))];
    const [literals, distances] = kind === 1 ? fixed() : dynamic();
    for (let next = symbol(literals); next !== 256; next = symbol(literals)) {
      if (next < 256) { found.push(next); continue; }
      const length = next === 285 ? 258 : 3 + amount(next - 257, 4);
      const back = 1 + amount(symbol(distances), 2);
      for (let place = 0; place < length; place += 1) found.push(found[found.length - back]);
    }
  }
  return new TextDecoder().decode(new Uint8Array(found));
}
